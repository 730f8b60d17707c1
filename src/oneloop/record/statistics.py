"""95 % intervals: of a share, and of a mean whose samples come in clusters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isfinite, sqrt
from statistics import fmean
from typing import NamedTuple

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


class Interval(NamedTuple):
    low: float
    high: float


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a share: the p with |p̂ − p| ≤ 1.96·√(p(1 − p)/n).

    Reference: Wilson 1927. It stays inside [0, 1] and is honest near its ends, where the normal one is not.

    Raises: ValueError unless 0 ≤ successes ≤ trials and there is a trial.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials; wanted 0 ≤ successes ≤ trials, and a trial")
    from scipy.stats import binomtest  # noqa: PLC0415  # slow to load

    found = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return Interval(float(found.low), float(found.high))


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Interval:
    """mean ± 1.96·SE, with SE² = C/(C − 1) · Σ_c (Σ_(i∈c) (x_i − mean))²/n² over C clusters of n values together.

    The k samples of one prompt are one cluster: they rise and fall together, and counting them as k prompts would
    make the interval too narrow. Without clusters every value is its own, and SE = s/√n with the usual n − 1.

    Reference: Miller, arXiv:2411.00640, clustered standard errors. Differs: the factor C/(C − 1), without which a
    few clusters give too narrow an interval.

    Raises: ValueError for fewer than two clusters, where there is no spread to measure, and for values that are not
        finite.
    """
    if bad := [value for value in values if not isfinite(value)]:
        raise ValueError(f"{len(bad)} of {len(values)} values are not finite (the first is {bad[0]})")
    keys = list(range(len(values))) if clusters is None else list(clusters)
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} clusters for {len(values)} values; wanted one for each")
    count = len(set(keys))
    if count < 2:
        raise ValueError(f"{count} cluster has no spread; an interval needs at least two prompts")
    mean, sums = fmean(values), dict.fromkeys(keys, 0.0)
    for key, value in zip(keys, values, strict=True):
        sums[key] += value - mean
    error = sqrt(count / (count - 1) * sum(total**2 for total in sums.values())) / len(values)
    return Interval(mean - Z * error, mean + Z * error)


def share_or_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Wilson's interval for one 0/1 value per prompt, the clustered normal one otherwise.

    Where several samples a prompt are all right (or all wrong) the normal interval would have no width; each prompt
    then counts once in Wilson's.
    """
    prompts, kinds = len(set(clusters)), set(values)
    if kinds <= {0.0, 1.0} and (prompts == len(values) or len(kinds) == 1):
        return wilson(round(sum(values) * prompts / len(values)), prompts)
    return mean_interval(values, clusters)
