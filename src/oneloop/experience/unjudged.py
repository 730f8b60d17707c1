"""Where no reward is asked for: the KL to the teacher is all that a sample is judged by."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from oneloop.types import Reward, Trajectory


def unjudged(
    trajectories: Sequence[Trajectory], step: int = 0, scored: Callable[[int], None] | None = None
) -> list[Trajectory]:
    """Implements `oneloop.ports.Scorer`: a reward of 0 for all, to which the algorithm adds its KL."""
    return [replace(item, reward=Reward(value=0.0)) for item in trajectories]
