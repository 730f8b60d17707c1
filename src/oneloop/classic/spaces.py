"""What an environment shows and takes, as a policy of vectors sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oneloop.errors import ConfigError

MOST = 4096
"""Numbers of an observation that a perceptron is given."""


@dataclass(frozen=True)
class Spaces:
    """Observations as rows of `features` numbers, actions as indices or as vectors.

    Args:
        one_hot: observations are indices, of which `features` differ.
        first: of an observation that is an index, and of a discrete action.
        choices: discrete actions; 0: they are vectors.
        low, high: bounds of each number of an action.
        shape: of an action.
    """

    features: int
    one_hot: bool
    first: tuple[int, int]
    choices: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def numbers(self) -> int:
        """Of an action that is a vector."""
        return len(self.low)

    def observed(self, rows: np.ndarray) -> np.ndarray:
        """Of several environments, as float rows."""
        if self.one_hot:
            return np.eye(self.features)[rows - self.first[0]]
        return rows.reshape(len(rows), -1)

    def taken(self, actions: np.ndarray) -> np.ndarray:
        """What the environments are given: a vector is cut off at the bounds, as its log-prob is not."""
        if self.choices:
            return actions + self.first[1]
        return np.clip(actions, self.low, self.high).astype(np.float32).reshape(len(actions), *self.shape)


def spaces_of(observation: Any, action: Any, env: str) -> Spaces:
    """From Gymnasium's spaces of one environment.

    Raises: ConfigError for a space that no perceptron reads or no head writes.
    """
    from gymnasium.spaces import Box, Discrete  # noqa: PLC0415  # an extra

    if isinstance(observation, Discrete):
        features, one_hot, first = int(observation.n), True, int(observation.start)
    elif isinstance(observation, Box) and len(observation.shape) < 3:
        features, one_hot, first = int(np.prod(observation.shape)), False, 0
    else:
        raise ConfigError(
            f"--env {env} shows {observation}: a perceptron reads vectors (Box) and indices (Discrete), no pictures, "
            "texts or mixtures. Fix: another environment, or a wrapper that flattens them, under a name of its own"
        )
    if not 0 < features <= MOST:
        raise ConfigError(f"--env {env} shows {features} numbers; a perceptron is given at most {MOST}")
    if isinstance(action, Discrete):
        return Spaces(features, one_hot, (first, int(action.start)), int(action.n))
    if isinstance(action, Box) and np.issubdtype(action.dtype, np.floating):
        low, high = (tuple(map(float, bound.reshape(-1))) for bound in (action.low, action.high))
        return Spaces(features, one_hot, (first, 0), 0, low, high, tuple(action.shape))
    raise ConfigError(
        f"--env {env} takes {action}: policies choose one of several actions (Discrete) or a vector of floats (Box). "
        "Fix: another environment, or a wrapper that makes it one of these, under a name of its own"
    )
