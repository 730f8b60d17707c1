"""The rewards of episodes: what their environment gave, and what functions say of the whole text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from oneloop.errors import RewardError
from oneloop.rewards.score import RewardScorer
from oneloop.rewards.values import LARGEST
from oneloop.types import Reward, Trajectory


def _unheard(count: int) -> None:
    """Nobody waits for the count of scored samples."""


@dataclass(frozen=True)
class PlayedScorer:
    """Implements `oneloop.ports.Scorer`: the weighted sum of the environment's rewards and of those of functions.

    What the environment gives for a turn stands on that turn's last action; what functions give on the last of all. A
    sample whose environment failed cannot be scored, and functions do not see it; nor can one that functions were
    asked about and none could score.

    Args:
        name: of the environment.
        functions: None: the environment judges alone.
    """

    name: str
    weight: float = 1.0
    functions: RewardScorer | None = None

    def __call__(
        self, trajectories: Sequence[Trajectory], step: int = 0, scored: Callable[[int], None] = _unheard
    ) -> list[Trajectory]:
        whole = [item for item in trajectories if not item.reward.failures]
        judged = iter(whole if self.functions is None else self.functions(whole, step, scored))
        if self.functions is None:
            scored(len(trajectories))
        return [self._failed(item) if item.reward.failures else self._joined(next(judged)) for item in trajectories]

    def _failed(self, item: Trajectory) -> Trajectory:
        return replace(item, reward=Reward(value=None, parts={self.name: None}, failures=item.reward.failures))

    def _joined(self, item: Trajectory) -> Trajectory:
        given = [(turn.span[1] - 1, turn.reward) for turn in item.turns if turn.span and turn.reward is not None]
        total, said = sum(reward for _, reward in given), item.reward
        if self.functions is not None and said.value is None:
            return replace(item, reward=replace(said, parts={self.name: total, **said.parts}))
        value = self.weight * total + (said.value or 0.0)
        if not abs(value) <= LARGEST:
            raise RewardError(
                f"the weighted sum of rewards is {value} in row {item.prompt.id}; wanted a finite number of float32. "
                "Fix: smaller --reward-weights"
            )
        placed = tuple((place, self.weight * reward) for place, reward in given if reward)
        return replace(item, reward=replace(said, value=value, parts={self.name: total, **said.parts}, placed=placed))
