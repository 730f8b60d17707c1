"""The forms that Gao et al. found for the gold reward by d = √KL, fitted, and intervals by the bootstrap.

Reference: arXiv:2210.10760, introduction: best of n R = d(α − β d), reinforcement learning R = d(α − β log d).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from jaxtyping import Float64

from oneloop.record.statistics import Interval
from oneloop.seeds import named_seed

RESAMPLES = 4000


@dataclass(frozen=True)
class Form:
    """R(d) = d(α − β·bend(d)), R(0) = 0."""

    name: str
    bend: Callable[[float], float]

    def columns(self, distances: Sequence[float]) -> Float64[np.ndarray, "N 2"]:
        return np.array([(d, -d * self.bend(d)) for d in distances])


SQUARE = Form("d(α − β d)", lambda d: d)
LOG = Form("d(α − β log d)", log)


@dataclass(frozen=True)
class Fit:
    alpha: float
    beta: float
    error: float
    """Root mean square of what the form leaves, in the reward's unit."""


def fitted(form: Form, distances: Sequence[float], gained: Sequence[float]) -> Fit:
    """By least squares: the form is linear in α and β.

    Args:
        distances: √KL, √nats, all above 0.
        gained: reward above that of the start, at each.
    """
    columns, values = form.columns(distances), np.array(gained)
    (alpha, beta), *_ = np.linalg.lstsq(columns, values, rcond=None)
    left = values - columns @ np.array([alpha, beta])
    return Fit(float(alpha), float(beta), float(np.sqrt((left**2).mean())))


def bootstrapped(values: Sequence[float]) -> Interval:
    """95 % of the means of as many values drawn with replacement.

    All seeds have the same distances and the fit is linear: the mean of their coefficients is the fit of their mean.
    """
    rng = np.random.default_rng(named_seed("bootstrap", len(values)))
    drawn = np.array(values)[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(low), float(high))


def best_of_kl(count: int, answers: int) -> float:
    """KL(best of n ‖ uniform), nats, exactly: the k-th of the answers is taken with chance (k/A)ⁿ − ((k − 1)/A)ⁿ."""
    rank = np.arange(answers + 1) / answers
    chance = np.diff(rank**count)
    return float((chance * np.log(np.maximum(chance, 1e-300) * answers)).sum())


def best_of_kl_formula(count: int) -> float:
    """log n − (n − 1)/n, which is exact where no two draws are ever the same."""
    return log(count) - (count - 1) / count
