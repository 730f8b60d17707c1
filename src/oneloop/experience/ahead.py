"""Rollouts that do not wait: the next steps' completions are drawn while this one is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple

from oneloop.batch import Batch
from oneloop.errors import ConfigError
from oneloop.experience.dealt import own
from oneloop.experience.drawing import Draw, Ended, OneTurn
from oneloop.experience.episodes import Request
from oneloop.experience.rollouts import Rollouts
from oneloop.experience.scoring import Scored
from oneloop.experience.turns import Episodes
from oneloop.ports import BesideEngine, Drawn, Models, Report, Scorer, SingleProcess, World
from oneloop.types import Completion, Sampling, Trajectory

_LEAVING = 10.0
"""Seconds that the end of a run waits for episodes that are being played, whose engine is closed."""


class _Drawing(NamedTuple):
    """A step whose completions are on their way."""

    requests: list[Request]
    mine: Future[Scored]
    """Of those requests that this rank draws."""
    played: Future[Drawn] | None = None
    """Where they are episodes of several turns."""


class Ahead:
    """Implements `oneloop.ports.Experience`: `Rollouts` whose steps are begun up to K updates before they are due.

    Step j has the prompts that it has in the stream, and may begin when j ≤ updates + K: what a batch is made of never
    depends on how fast anything was, so that long answers are as likely in it as short ones. No token is drawn from
    weights that are more than K updates older than those that learn from it. Groups that dynamic sampling drops are
    replaced from the end of the stream, drawn from the newest weights while their step waits.

    Episodes of several turns are played step by step in one thread, and an update waits for their end: a turn that
    began after it would be drawn from other weights, by how fast an environment was.

    Args:
        rollouts: whose engine is `engine`; its scorer is called from several threads.
        staleness: K, in steps of the loop. With 0, batches are those of `rollouts`.
        last: of the run's steps; none that would follow is begun.
        world: that of `rollouts`.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        engine: BesideEngine,
        *,
        staleness: int,
        last: int,
        world: World = SingleProcess(),  # noqa: B008
    ) -> None:
        self._rollouts, self._engine, self._world = rollouts, engine, world
        if not isinstance(rollouts.draw, OneTurn | Episodes):
            raise ConfigError(f"{type(rollouts.draw).__name__} cannot be drawn beside the training. Fix: --staleness 0")
        self._draw = rollouts.draw
        self._player = ThreadPoolExecutor(1, thread_name_prefix="episodes")
        self._playing: list[Future[Drawn]] = []
        self._staleness, self._last = staleness, last
        self._step = 0
        self._places: dict[int, int] = {}  # of the steps that have prompts and are not trained on: in the stream
        self._drawings: dict[int, _Drawing] = {}
        self._threads = ThreadPoolExecutor(staleness + 1, thread_name_prefix="ahead")

    def batch(self, step: int) -> Batch:
        self._begin(step, step)
        self._step, drawing = step, self._drawings.pop(step)
        batch = self._rollouts.filled(step, drawing.requests, lambda _: self._engine.until(drawing.mine))
        del self._places[step]
        # what the sampler says of older weights is not π_old, however exact it is
        return batch if self._staleness == 0 else replace(batch, old_logprobs=None)

    def update(self, models: Models, step: int) -> None:
        wait([drawing.played for drawing in self._drawings.values() if drawing.played])
        self._rollouts.update(models, step)
        self._begin(step + 1, self._last)

    def _begin(self, now: int, last: int) -> None:
        """What may begin when step `now` is the next to be trained on, up to step `last` or the run's end."""
        for step in range(now, now + self._staleness + 1):
            if step not in self._places:
                self._places[step] = self._rollouts.place()
            if step <= max(last, self._last) and step not in self._drawings:
                self._drawings[step] = self._drawing(step, self._places[step])

    def _drawing(self, step: int, place: int) -> _Drawing:
        requests = self._rollouts.first(step, place)
        mine = own(self._world, requests)
        draw, played = self._begun(self._draw, mine)
        return _Drawing(requests, self._threads.submit(self._rollouts.scored_by, draw, step, mine), played)

    def _begun(self, draw: OneTurn | Episodes, mine: Sequence[Request]) -> tuple[Draw, Future[Drawn] | None]:
        """What has what was begun, when it is asked to draw."""
        sampling = self._rollouts.sampling
        if isinstance(draw, Episodes):
            played = self._player.submit(draw.beside, mine, sampling)
            self._playing = [*(each for each in self._playing if not each.done()), played]
            return _Played(played), played
        begun = self._engine.begin(
            [request.prompt.tokens for request in mine], sampling, [request.seed for request in mine]
        )

        def generate(prompts: Any, sampling: Sampling, seeds: Any, finished: Any) -> list[Completion]:
            return begun(finished)

        return replace(draw, generate=generate), None

    def report(self, batch: Batch) -> Report:
        report = self._rollouts.report(batch)
        return Report({**report.scalars, **staleness_scalars(self._step, report.trajectories)}, report.trajectories)

    def state(self) -> dict[str, Any]:
        """Steps that are on their way are drawn again, by the numbers of their prompts."""
        return {**self._rollouts.state(), "places": sorted(self._places.items())}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._rollouts.restore(state)
        self._places = {int(step): int(place) for step, place in state["places"]}

    def close(self) -> None:
        """End what is on its way. A reward that is being computed is not waited for; an episode is, for a while: what
        its environment has in common with others is closed next.
        """
        self._engine.close()
        for threads in (self._player, self._threads):
            threads.shutdown(wait=False, cancel_futures=True)
        wait([played for played in self._playing if not played.cancelled()], _LEAVING)


class _Played:
    """Implements `oneloop.experience.drawing.Draw`: episodes that somebody else plays."""

    def __init__(self, played: Future[Drawn]) -> None:
        self._played = played

    def __call__(self, requests: Sequence[Request], sampling: Sampling, ended: Ended) -> Drawn:
        drawn = self._played.result()
        for place, item in enumerate(drawn.trajectories):
            ended(place, item)
        return drawn


def staleness_scalars(step: int, items: Sequence[Trajectory]) -> dict[str, float]:
    """How many updates older than the weights that learn from them the weights were that tokens were drawn from: mean
    and maximum over the tokens of kept groups."""
    ages = [(step - version, count) for item in items if item.kept for version, count in item.completion.versions]
    tokens = sum(count for _, count in ages)
    if not tokens:
        return {}
    mean = sum(age * count for age, count in ages) / tokens
    return {"rollout/staleness": mean, "rollout/staleness/max": float(max(age for age, count in ages if count))}


class InTurn:
    """Implements `oneloop.ports.Scorer`: one call at a time, whatever thread it comes from."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._lock = scorer, Lock()

    def __call__(self, *arguments: Any, **options: Any) -> list[Trajectory]:
        with self._lock:
            return self._scorer(*arguments, **options)
