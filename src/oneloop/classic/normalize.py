"""Running normalisation of observations and scaling of rewards, as a wrapper's choice.

The moments are those of everything seen so far: they are part of the policy, and are saved with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

EPS = 1e-8
"""Added to a variance."""
LIMIT = 10.0
"""Normalised numbers are cut off here."""


class Moments:
    """Mean and variance of everything added so far, in float64, by Chan's rule for joining two samples.

    They start as of 1e-4 samples with mean 0 and variance 1, as Stable-Baselines3's and Gymnasium's do.
    """

    def __init__(self, size: int) -> None:
        self.mean, self.variance, self.count = np.zeros(size), np.ones(size), 1e-4

    def add(self, rows: np.ndarray) -> None:
        """Rows of `size` numbers."""
        count = len(rows)
        total = self.count + count
        step = rows.mean(0, dtype=np.float64) - self.mean
        squares = self.variance * self.count + rows.var(0, dtype=np.float64) * count
        self.variance = (squares + step**2 * (self.count * count / total)) / total
        self.mean = self.mean + step * (count / total)
        self.count = total

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "variance": self.variance.tolist(), "count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mean, self.variance = np.array(state["mean"]), np.array(state["variance"])
        self.count = float(state["count"])


class Observations:
    """(s − mean)/√(variance + ε), cut off at ±10. The policy acts on a row after its moments have taken it in."""

    def __init__(self, size: int, on: bool) -> None:
        self._moments = Moments(size) if on else None

    def seen(self, rows: np.ndarray) -> np.ndarray:
        """Take rows in, and give them normalised."""
        if self._moments is not None:
            self._moments.add(rows)
        return self(rows)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if self._moments is None:
            return rows
        scaled = (rows - self._moments.mean) / np.sqrt(self._moments.variance + EPS)
        return np.clip(scaled, -LIMIT, LIMIT)

    def state(self) -> dict[str, Any] | None:
        return None if self._moments is None else self._moments.state()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        if self._moments is not None and state is not None:
            self._moments.restore(state)


class Rewards:
    """r / √(Var[R] + ε), cut off at ±10, where R_t = γ R_(t−1) + r_t runs along each episode.

    All of a step's rewards are taken in before the first of them is divided. The mean is left where it is: taking it
    off would pay for a longer episode, or fine it.
    """

    def __init__(self, environments: int, gamma: float, on: bool) -> None:
        self._moments = Moments(1) if on else None
        self._gamma, self._running = gamma, np.zeros(environments)

    def scaled(self, rewards: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """Of steps in order: [T, environments], and whether an episode ended with each."""
        if self._moments is None:
            return rewards
        along = np.empty_like(rewards, dtype=np.float64)
        for t, (reward, over) in enumerate(zip(rewards, ended, strict=True)):
            along[t] = self._running = self._running * self._gamma + reward
            self._running = np.where(over, 0.0, self._running)
        self._moments.add(along.reshape(-1, 1))
        return np.clip(rewards / np.sqrt(self._moments.variance[0] + EPS), -LIMIT, LIMIT)

    def forget(self, environments: list[int]) -> None:
        """Their episodes are others."""
        self._running[environments] = 0.0

    def state(self) -> dict[str, Any] | None:
        if self._moments is None:
            return None
        return {"moments": self._moments.state(), "running": self._running.tolist()}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        if self._moments is not None and state is not None:
            self._moments.restore(state["moments"])
            self._running = np.array(state["running"])
