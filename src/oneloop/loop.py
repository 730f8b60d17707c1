"""THE loop. SFT, reward models, PPO, GRPO, DAPO, RLOO and DPO all run these lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from oneloop.algorithms import Algorithm
from oneloop.batch import Batch, PolicyOutput, added
from oneloop.ports import Careful, Experience, Measure, Models, Recorder, SingleProcess, Trace, Untraced, World
from oneloop.room import Room
from oneloop.seeds import named_seed
from oneloop.sound import Sound, Told, unheard

Hook = Callable[[int, Algorithm], None]
"""Called after each recorded step with its number and the algorithm of the next one; knows itself when it is due."""


def train(
    algorithm: Algorithm,
    experience: Experience,
    models: Models,
    recorder: Recorder,
    *,
    steps: int,
    minibatch: int,
    max_tokens: int,
    seed: int,
    start: int = 0,
    world: World = SingleProcess(),  # noqa: B008
    trace: Trace = Untraced(),  # noqa: B008
    unsound: Told = unheard,
    measures: Sequence[Measure] = (),
    hooks: Sequence[Hook] = (),
    phase: Callable[[str], None] = lambda name: None,
) -> Algorithm:
    """Train from step `start` up to `steps`.

    Args:
        minibatch: groups per optimizer step.
        max_tokens: most tokens, padding included, in one forward and backward pass.
        seed: names the order of groups in each step.
        trace: looks at every pass of the updates.
        unsound: told of a step that is not taken, because something in it is not finite.
        measures: evaluations whose results are logged with the step.
        hooks: called after each step is recorded (save, stop).
        phase: told which part of a step begins: rollout, prepare, update.
        world: the ranks that train together; each runs this loop over the same batches, and passes are dealt to them.

    Returns: the algorithm as it stands after the last step (its KL coefficient may have adapted).

    Raises: DivergedError, and whatever a reward function or a hook raises.
    """

    def halved(text: str) -> None:
        recorder.event(step, "A_ROOM", text, "a smaller --max-tokens from the start, which changes memory alone")

    room = Room(max_tokens, world.ranks == 1 and isinstance(models, Careful), halved)
    for step in range(start, steps):
        clock, tally = Clock(phase), Tally(world)
        with clock("rollout"):
            batch = experience.batch(step)  # y ~ μ(·|x), scored  |  pairs  |  demonstrations
        with clock("prepare"):
            one_update = algorithm.epochs == 1 and batch.num_groups <= minibatch
            # π_old, π_ref, V_φ → Â        (no gradient; π_old only where the update's own forward pass is not it)
            batch = algorithm.prepare(batch, models, one_update=one_update)
        with clock("update"):
            sound = Sound(step, batch, world, unsound)
            minis = minibatches(batch, algorithm.epochs, minibatch, seed, step)
            for update, mini in enumerate(minis):  # one optimizer step each
                if mini.size.tokens == 0:  # nothing to learn from, and momentum alone must not move the weights
                    tally.skip()
                    continue
                # where memory runs out, once more with smaller passes
                stats, saws = room(partial(gradient, algorithm, models, mini, world, sound), partial(forget, models))
                tally.add(stats)
                for micro, out in saws:
                    trace.saw(update, micro, out)
                # finite check, clip, AdamW, schedule  |  the natural step of a trust region
                take = partial(algorithm.step, models, mini, room.tokens, world)
                if algorithm.too_far(tally.close(sound.step(update, models, take))) or sound.broken:
                    break
            experience.update(models, step)  # μ ← π_θ
        report = experience.report(batch)
        scalars = {**report.scalars, **algorithm.observe(batch), **tally.mean(), **clock.scalars(batch)}
        for measure in measures:
            scalars |= measure(step)
        recorder.trajectories(step, report.trajectories)
        trace.close(step, batch, report.trajectories)
        recorder.scalars(step, scalars)
        algorithm = algorithm.adapted(scalars.get("kl"), batch.size.sequences)
        for hook in hooks:  # save, stop: each knows when it is due
            hook(step, algorithm)
    return algorithm


def gradient(
    algorithm: Algorithm, models: Models, mini: Batch, world: World, sound: Sound, max_tokens: int
) -> tuple[dict[str, Tensor], list[tuple[Batch, PolicyOutput]]]:
    """Add up the gradient of one optimizer step: of a sum, not of a mean of means.

    Returns: the statistics of its loss, and this rank's passes.
    """
    size = mini.size  # the denominator: counted once, whoever computes the passes
    stats: dict[str, Tensor] = {}
    saws: list[tuple[Batch, PolicyOutput]] = []
    sound.begin()
    for micro, mine in dealt(world, mini.microbatches(max_tokens)):
        out = models.policy(micro)
        loss = algorithm.loss(out, micro, size).counted(mine)
        loss.value.backward()
        sound.saw(micro, out, loss)
        stats = added(stats, loss.stats)
        if mine:
            saws.append((micro, detached(out)))
        del out, loss  # their graph, before the next one is built
    return stats, saws


def detached(out: PolicyOutput) -> PolicyOutput:
    return PolicyOutput(*(None if value is None else value.detach() for value in out))  # pyright: ignore[reportArgumentType]


def forget(models: Models) -> None:
    if isinstance(models, Careful):
        models.forget()


def minibatches(batch: Batch, epochs: int, groups: int, seed: int, step: int) -> Iterator[Batch]:
    """K epochs over the groups, each in its own order, which depends on nothing but the seed and the step."""
    rng = torch.Generator().manual_seed(named_seed(seed, "shuffle", step))
    for _ in range(epochs):
        yield from batch.shuffle(rng).split(groups)


def dealt(world: World, micros: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """This rank's microbatches of an optimizer step, and whether each counts.

    A rank with one fewer than another is given the first of all once more, which does not count: so that every rank
    makes the same passes and the same collective calls in them.
    """
    every = list(micros)
    for micro in world.share(every):
        yield (every[0], False) if micro is None else (micro, True)


class Tally:
    """Statistics of one step: added up over the microbatches of an optimizer step, averaged over those."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: dict[str, Tensor] = {}
        self._closed: list[dict[str, float]] = []
        self._skipped = 0

    def add(self, stats: Mapping[str, Tensor]) -> None:
        self._open = added(self._open, stats)

    def close(self, update: Mapping[str, float]) -> dict[str, float]:
        """End one optimizer step; returns its own statistics."""
        stats = self._world.sum({name: float(value) for name, value in self._open.items()}) | dict(update)
        self._open = {}
        self._skipped += int(stats.pop("skipped_steps", 0))
        self._closed.append(stats)
        return stats

    def skip(self) -> None:
        self._skipped += 1

    def mean(self) -> dict[str, float]:
        names = dict.fromkeys(name for stats in self._closed for name in stats)
        out: dict[str, float] = {"optimizer_steps": float(len(self._closed)), "skipped_steps": float(self._skipped)}
        for name in names:
            values = [stats[name] for stats in self._closed if name in stats]
            out[name] = max(values) if name.endswith("/max") else sum(values) / len(values)
        return out


class Clock:
    """Seconds of each phase of a step."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._told(phase)
        start = perf_counter()
        yield
        self._seconds[phase] = perf_counter() - start

    def scalars(self, batch: Batch) -> dict[str, float]:
        """`time/*` in seconds, and trained action tokens per second of the whole step."""
        tokens = int(batch.mask.sum())
        return {f"time/{phase}": seconds for phase, seconds in self._seconds.items()} | {
            "tokens_per_second": tokens / max(sum(self._seconds.values()), 1e-9)
        }
