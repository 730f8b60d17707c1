"""95 % intervals: of a share, and of a mean whose samples come in clusters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import sqrt
from statistics import fmean
from typing import NamedTuple

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


class Interval(NamedTuple):
    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a share.

    Reference: Wilson 1927. It stays inside [0, 1] and is honest near its ends, where the normal one is not.
    """
    from scipy.stats import binomtest  # noqa: PLC0415  # slow to load

    found = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return Interval(float(found.low), float(found.high))


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Interval:
    """mean ± 1.96·SE, with SE² = Σ_c (Σ_(i∈c) (x_i − mean))²/n²: samples of one prompt are one cluster.

    Reference: Miller, arXiv:2411.00640, section 2.2. Without clusters every value is its own.

    Raises: ValueError for fewer than two clusters: there is no spread to measure.
    """
    keys = list(range(len(values))) if clusters is None else list(clusters)
    mean, sums = fmean(values), {}
    for key, value in zip(keys, values, strict=True):
        sums[key] = sums.get(key, 0.0) + value - mean
    if len(sums) < 2:
        raise ValueError(f"{len(sums)} cluster has no spread; an interval needs at least two prompts")
    error = sqrt(sum(total**2 for total in sums.values())) / len(values)
    return Interval(mean - Z * error, mean + Z * error)


def share_or_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Wilson's interval for one 0/1 value per prompt, the clustered normal one otherwise."""
    single = len(set(clusters)) == len(values)
    if single and all(value in (0.0, 1.0) for value in values):
        return wilson(round(sum(values)), len(values))
    return mean_interval(values, clusters)
