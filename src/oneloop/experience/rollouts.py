"""Rollouts: groups of completions drawn from the policy itself, scored, and filtered by dynamic sampling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch

from oneloop.batch import Batch
from oneloop.errors import ConfigError, RewardError
from oneloop.experience.credited import credited
from oneloop.experience.dealt import dealt
from oneloop.experience.drawing import Draw
from oneloop.experience.episodes import Request, dead_scalars, length_scalars, reward_scalars, turn_scalars
from oneloop.experience.pack import Row, action_means, collate
from oneloop.experience.scoring import Phase, Scored, drawn_and_scored, silent, unwatched
from oneloop.experience.stream import Stream
from oneloop.objective.select import GroupFilter
from oneloop.ports import Models, Recorder, Report, RolloutEngine, Scorer, SingleProcess, World
from oneloop.seeds import named_seed
from oneloop.types import Prompt, Sampling, Trajectory

Group = list[Trajectory]
FAILING_STEPS, MOST_FAILURES = 20, 0.1
"""A run ends when rewards failed on more than this share of the samples of so many steps."""
REASONS = 3
"""Kinds of failure that an alert names."""


class Rollouts:
    """Implements `oneloop.ports.Experience` by sampling.

    Args:
        draw: completions, or episodes, for requests; the weights are those of `engine`.
        scorer: fills in rewards.
        prompts_per_step: groups of a batch.
        group_size: G, samples per prompt.
        keep: dynamic sampling: which groups are worth training on. The others are drawn again from new prompts.
        max_refills: how often that is tried in a step; then training goes on with what there is.
        score_early: score each group as soon as it is complete, beside the sampling of the others.
        say: told how far the scoring is, while it is slow.
        phase: told whether it is sampled, or rewards are waited for.
        world: ranks to which whole groups are dealt; each samples and scores its own, and all have the batch.
    """

    def __init__(
        self,
        *,
        engine: RolloutEngine,
        prompts: Sequence[Prompt],
        draw: Draw,
        scorer: Scorer,
        sampling: Sampling,
        prompts_per_step: int,
        group_size: int,
        seed: int,
        recorder: Recorder,
        keep: GroupFilter | None = None,
        max_refills: int = 4,
        score_early: bool = False,
        say: Callable[[str], None] = silent,
        phase: Phase = unwatched,
        device: torch.device | str = "cpu",
        world: World = SingleProcess(),  # noqa: B008
    ) -> None:
        check_sampling(sampling)
        self._engine, self._scorer, self._recorder = engine, scorer, recorder
        self.sampling, self.draw = sampling, draw
        self._stream, self._seed, self._device = Stream(prompts, seed), seed, device
        self._prompts_per_step, self._group_size = prompts_per_step, group_size
        self._keep, self._max_refills, self._score_early = keep, max_refills, score_early
        self._say, self._phase, self._world = say, phase, world
        self._failed: list[tuple[int, int]] = []  # of the last steps: samples that a reward failed on, and all samples
        self._drawn: list[Group] = []
        self._scoring, self._counts = 0.0, dict[str, float]()

    def batch(self, step: int) -> Batch:
        return self.filled(step, self.first(step, self.place()), partial(self.scored, step))

    def place(self) -> int:
        """Take the next prompts of the stream for a step; returns the number of the first."""
        self._stream.drawn += self._prompts_per_step
        return self._stream.drawn - self._prompts_per_step

    def first(self, step: int, place: int) -> list[Request]:
        """The requests that a step begins with, whose prompts stand at `place` of the stream."""
        return self._requests(step, self._stream.at(place, self._prompts_per_step), [])

    def filled(self, step: int, first: Sequence[Request], draw: Callable[[Sequence[Request]], Scored]) -> Batch:
        """The batch of a step from what `draw` makes of its first requests, and refills."""
        self._drawn, self._scoring, self._counts = [], 0.0, {}
        self._drawn = self._judged(first, draw)
        for _ in range(self._max_refills if self._keep else 0):
            missing = self._prompts_per_step - sum(group[0].kept for group in self._drawn)
            if not missing:
                break
            more = self._requests(step, self._stream.take(missing), self._drawn)
            self._drawn += self._judged(more, partial(self.scored, step))
        self._count_failures(step, [item for group in self._drawn for item in group])
        # with nothing kept, the rows stay for the record without an action: the step is skipped, not invented
        batch = collate([_row(item) for item in self._rows()], self._device)
        return replace(batch, old_logprobs=batch.rollout_logprobs) if self._engine.exact else batch

    def _requests(self, step: int, prompts: Sequence[Prompt], drawn: Sequence[Group]) -> list[Request]:
        """A new group for each, after those that the step has."""
        asked = Counter(group[0].prompt.id for group in drawn)
        requests: list[Request] = []
        for number, prompt in enumerate(prompts, start=len(drawn)):
            # a small data set may come round within a step: its samples go on where the first group's ended
            first = asked[prompt.id] * self._group_size
            asked[prompt.id] += 1
            requests += [
                Request(prompt, number, sample, named_seed(self._seed, step, prompt.id, first + sample))
                for sample in range(self._group_size)
            ]
        return requests

    def scored(self, step: int, requests: Sequence[Request]) -> Scored:
        """Sampled and scored here."""
        return self.scored_by(self.draw, step, requests, self._phase)

    def scored_by(self, draw: Draw, step: int, requests: Sequence[Request], phase: Phase = unwatched) -> Scored:
        """What `draw` draws, scored."""
        return drawn_and_scored(
            draw,
            self._scorer,
            requests,
            self.sampling,
            early=self._score_early,
            step=step,
            say=self._say,
            phase=phase,
        )

    def _judged(self, requests: Sequence[Request], draw: Callable[[Sequence[Request]], Scored]) -> list[Group]:
        """The requests' groups, with what is decided of each: whether it is kept."""
        self._phase("rollout", "")
        scored, seconds, counts = dealt(self._world, requests, draw)
        self._scoring += seconds
        self._counts = {name: self._counts.get(name, 0.0) + value for name, value in counts.items()}
        size = self._group_size
        groups = [scored[place : place + size] for place in range(0, len(scored), size)]
        return [group if self._keeps(group) else [replace(item, kept=False) for item in group] for group in groups]

    def _keeps(self, group: Group) -> bool:
        return self._keep is None or self._keep([item.reward.value for item in group])

    def _rows(self) -> list[Trajectory]:
        """The trajectories of the batch, in the order of its rows."""
        kept = [item for group in self._drawn for item in group if item.kept]
        return kept or [item for group in self._drawn for item in group]

    def update(self, models: Models, step: int) -> None:
        self._engine.update(step + 1)

    def report(self, batch: Batch) -> Report:
        rows = self._rows()
        means = [None] * len(rows) if batch.advantages is None else action_means(batch.advantages, batch)
        filled = {
            (item.group, item.sample): replace(item, advantage=mean, turns=turns)
            for item, mean, turns in zip(rows, means, credited(rows, batch), strict=True)
        }
        every = [filled.get((item.group, item.sample), item) for group in self._drawn for item in group]
        return Report(self._scalars(every), every)

    def _scalars(self, items: Sequence[Trajectory]) -> dict[str, float]:
        """Over everything that was drawn, dropped groups included: what the policy does, not what was selected."""
        scalars = {
            **reward_scalars(items),
            **length_scalars(items),
            "num_groups": float(len(self._drawn)),
            "frac_groups_kept": fmean(group[0].kept for group in self._drawn),
            "num_tokens": float(sum(len(item.completion.actions) for item in items)),
            "epoch": self._stream.epoch,
            "time/reward": self._scoring,
            **self._counts,
            **turn_scalars(items),
        }
        if self._group_size > 1:
            scalars |= dead_scalars([[item.reward.value for item in group] for group in self._drawn])
        return scalars

    def _count_failures(self, step: int, items: Sequence[Trajectory]) -> None:
        """Raises: RewardError when rewards failed on more than a share of the samples that so many steps draw."""
        failures = [f"reward {name} {text}" for item in items for name, text in item.reward.failures.items()]
        failed = sum(bool(item.reward.failures) for item in items)
        self._failed = [*self._failed, (failed, len(items))][-FAILING_STEPS:]
        if not failed:
            return
        self._recorder.event(
            step,
            "A_REWARD",
            f"a reward failed on {failed} of {len(items)} samples ({_counted(failures)})",
            "mend the reward function, or give it more time; --on-reward-error stop ends a run at its first failure",
        )
        lost, drawn = (sum(column) for column in zip(*self._failed, strict=True))
        if lost > MOST_FAILURES * drawn / len(self._failed) * FAILING_STEPS:
            raise RewardError(
                f"rewards failed on {lost} of the last {drawn} samples, more than {MOST_FAILURES:.0%} of what "
                f"{FAILING_STEPS} steps draw; the last failure: {failures[0]}"
            )

    def state(self) -> dict[str, Any]:
        return {"drawn": self._stream.drawn, "version": self._engine.version, "failed": self._failed}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._stream.drawn = int(state["drawn"])
        self._engine.update(int(state["version"]))
        self._failed = [(int(failed), int(count)) for failed, count in state.get("failed", ())]


def _counted(failures: Sequence[str]) -> str:
    """The most frequent reasons, and how often each was met."""
    every = Counter(failures).most_common()
    told = ", ".join(f"{count} × {text}" for text, count in every[:REASONS])
    return told + (f", and {len(every) - REASONS} other reasons" if len(every) > REASONS else "")


def _row(item: Trajectory) -> Row:
    return Row(
        prompt=item.prompt.tokens,
        actions=item.completion.tokens,
        group=item.group,
        reward=0.0 if item.reward.value is None else item.reward.value,
        truncated=item.completion.stop.truncated,
        logprobs=item.completion.logprobs,
        chosen=item.completion.chosen,
        placed=item.reward.placed,
        # a sample that could not be scored teaches nothing; its 0 stands on a masked slot, which nothing reads
        trained=item.kept and item.reward.value is not None,
    )


def check_sampling(sampling: Sampling) -> None:
    """Raises: ConfigError where some tokens could never be drawn: their log-probs would not be those of the sampler."""
    if sampling.truncated_support:
        raise ConfigError(
            f"training with temperature={sampling.temperature:g}, top_k={sampling.top_k}, top_p={sampling.top_p:g} "
            "draws from a truncated distribution, while the trainer's log-probs are of the full one: every ratio "
            "would be biased (mean 0.9 at top_p 0.8). Fix: --top-k 0 --top-p 1 and a positive --temperature"
        )
