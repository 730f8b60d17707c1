"""Episodes that ended: what they are counted as, and what a run's folder keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any, NamedTuple

import numpy as np

from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory


class Episode(NamedTuple):
    """One that ended, by the environment's own rewards."""

    reward: float
    length: int


class Played(NamedTuple):
    """An episode that ended, as its environment knows it: the same seed and actions give it again."""

    place: int
    """Of its environment, among those side by side."""
    number: int
    """How many that environment had before it."""
    seed: int
    actions: Sequence[Any]
    terminated: bool
    """By the environment, and not by its time limit."""


def episode_scalars(episodes: list[Episode]) -> dict[str, float]:
    """Of episodes that ended; `reward` is their mean return, as it is a completion's reward elsewhere."""
    rewards, lengths = [episode.reward for episode in episodes], [episode.length for episode in episodes]
    return {
        "reward": fmean(rewards),
        "episode_return/mean": fmean(rewards),
        "episode_return/std": pstdev(rewards),
        "episode_return/min": min(rewards),
        "episode_return/max": max(rewards),
        "episode_length/mean": fmean(lengths),
        "episodes": float(len(episodes)),
    }


def episodes_of(ended: Sequence[Trajectory]) -> list[Episode]:
    return [Episode(item.reward.value or 0.0, len(item.completion.tokens)) for item in ended]


def trajectory(env: str, group: int, played: Played, reward: float, marks: Sequence[tuple[int, int]]) -> Trajectory:
    """A row of rollouts/. Its prompt says which episode, its completion lists the actions.

    `stop` is `environment` where the episode is over, and `turns` where its time limit has cut it.

    Args:
        group: number among the episodes that ended in this step of the loop.
        reward: the return.
        marks: (actions before, step of the loop): from where on which step's policy acted.
    """
    place, number, seed, actions, terminated = played
    discrete = bool(actions) and isinstance(actions[0], int)
    (_, first), *later = marks
    return Trajectory(
        prompt=Prompt(
            id=f"{place}.{number}", text=f"{env}: environment {place}, episode {number}, seed {seed}", tokens=()
        ),
        group=group,
        sample=0,
        completion=Completion(
            # as in a batch: an action that is a vector has no number. Log-probs are the learner's, who has its own
            tokens=tuple(actions) if discrete else (0,) * len(actions),
            logprobs=(0.0,) * len(actions),
            stop=StopReason.ENVIRONMENT if terminated else StopReason.TURNS,
            version=first,
            changes=tuple(later),
        ),
        text=spelled(actions),
        reward=Reward(value=reward),
    )


def spelled(actions: Sequence[Any]) -> str:
    """All actions with spaces between them: 0 1 1, or [0.1,-2.0] [0.25,1.0] where they are vectors.

    Of each number of a vector, which is a float32, the fewest digits that give it again: episodes are played from them.

    >>> spelled([[float(np.float32(0.1)), -2.0], [0.25, 1.0]])
    '[0.1,-2.0] [0.25,1.0]'
    """
    return " ".join(_word(action) for action in actions)


def _word(action: Any) -> str:
    if isinstance(action, int):
        return str(action)
    return f"[{','.join(str(np.float32(number)) for number in _numbers(action))}]"


def _numbers(action: Any) -> list[float]:
    """Of an action of any shape."""
    return [number for part in action for number in _numbers(part)] if isinstance(action, list) else [action]
