"""Every reward function behind one contract: as many values as completions, each a finite number or None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from oneloop.errors import ConfigError, RewardError
from oneloop.rewards.adapters import missing
from oneloop.rewards.grading import Asked, Grade
from oneloop.rewards.load import NamedReward
from oneloop.rewards.values import LARGEST
from oneloop.types import Reward, Trajectory

OnError = Literal["stop", "unscored"]


def _unheard(count: int) -> None:
    """Nobody waits for the count of scored samples."""


@dataclass(frozen=True)
class RewardScorer:
    """Implements `oneloop.ports.Scorer`: the weighted sum of some reward functions.

    A part that is None does not count in the sum; a sample whose parts are all None could not be scored.

    Args:
        on_error: what a function that raises, hangs or breaks the contract does: stop the run, or leave the samples it
            failed on without a value of this part.
        steps: of the run, for functions that ask.

    Raises: RewardError when a function fails and `on_error` is "stop". A failure never becomes a reward.
    """

    rewards: tuple[NamedReward, ...]
    on_error: OnError = "stop"
    steps: int = 0

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ConfigError("no reward was named. Fix: --reward file.py:function")
        twice = [name for name, count in Counter(reward.name for reward in self.rewards).items() if count > 1]
        if twice:
            raise ConfigError(
                f"--reward: two functions are named {twice[0]!r}, and values are logged by name. Fix: rename one"
            )

    def __call__(
        self, trajectories: Sequence[Trajectory], step: int = 0, scored: Callable[[int], None] = _unheard
    ) -> list[Trajectory]:
        if not trajectories:
            return []
        asked = _asked(trajectories, step, self.steps)
        by_reward: dict[str, list[Grade]] = {}
        for reward in self.rewards:
            # a sample counts as scored when the last of the functions has seen it
            heard = scored if reward is self.rewards[-1] else _unheard
            by_reward[reward.name] = _grades(reward, asked, heard)
            if self.on_error == "stop" and not reward.grader.lenient:
                _stop_at_failure(reward.name, by_reward[reward.name])
        rows = [{name: grades[place] for name, grades in by_reward.items()} for place in range(len(trajectories))]
        return [
            replace(item, reward=self._reward(place, grades))
            for place, (item, grades) in enumerate(zip(trajectories, rows, strict=True))
        ]

    def _reward(self, place: int, grades: Mapping[str, Grade]) -> Reward:
        parts = {name: grade.value for name, grade in grades.items()}
        return Reward(
            value=self._total(place, parts),
            parts=parts,
            failures={name: grade.failure for name, grade in grades.items() if grade.failure is not None},
            measures={
                f"{name}/{key}": value for name, grade in grades.items() for key, value in grade.measures.items()
            },
            extras={key: text for grade in grades.values() for key, text in grade.extras.items()},
        )

    def _total(self, place: int, parts: Mapping[str, float | None]) -> float | None:
        weighted = [reward.weight * value for reward in self.rewards if (value := parts[reward.name]) is not None]
        total = sum(weighted) if weighted else None
        if total is not None and not abs(total) <= LARGEST:
            raise RewardError(
                f"the weighted sum of rewards is {total} at index {place} ({dict(parts)}); wanted a finite number "
                "of float32. Fix: smaller --reward-weights"
            )
        return total


def _asked(items: Sequence[Trajectory], step: int, steps: int) -> Asked:
    names = dict.fromkeys(name for item in items for name in item.prompt.columns if name != "prompt")
    return Asked(
        texts=[item.text for item in items],
        prompts=[item.prompt.text for item in items],
        messages=[item.prompt.messages for item in items],
        completion_ids=[item.completion.actions for item in items],
        episode_ids=[item.completion.tokens for item in items],
        prompt_ids=[item.prompt.tokens for item in items],
        columns={name: [item.prompt.columns.get(name) for item in items] for name in names},
        step=step,
        steps=steps,
    )


def _grades(reward: NamedReward, asked: Asked, scored: Callable[[int], None]) -> list[Grade]:
    signature = reward.grader.signature
    if (column := signature.lacks(asked.columns)) is not None:
        raise RewardError(missing(reward.name, column, signature, list(asked.columns)))
    grades: dict[int, Grade] = {}

    def tell(some: Mapping[int, Grade]) -> None:
        grades.update(some)
        scored(len(some))

    reward.grader.grade(asked, tell)
    return [grades[place] for place in range(len(asked))]


def _stop_at_failure(name: str, grades: Sequence[Grade]) -> None:
    for grade in grades:
        if grade.failure is not None:
            raise RewardError(f"reward {name} {grade.failure}") from grade.cause
