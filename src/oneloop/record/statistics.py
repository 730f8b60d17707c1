"""95 % intervals: of a share, and of a mean whose samples come in clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import fsum, isfinite, sqrt
from statistics import fmean, stdev
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
    keys = list(range(len(values))) if clusters is None else list(clusters)
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} clusters for {len(values)} values; wanted one for each")
    totals, counts = dict.fromkeys(keys, 0.0), Counter(keys)
    for key, value in zip(keys, values, strict=True):
        totals[key] += value
    return ratio_interval(list(totals.values()), [counts[key] for key in totals])


def student_interval(values: Sequence[float]) -> Interval:
    """mean ± t·s/√n with Student's t of n − 1 degrees of freedom: for a few values, such as one a seed.

    Raises: ValueError for fewer than two values, and for values that are not finite.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} value has no spread; an interval needs at least two")
    if bad := [value for value in values if not isfinite(value)]:
        raise ValueError(f"{len(bad)} of {len(values)} values are not finite (the first is {bad[0]})")
    from scipy.special import stdtrit  # noqa: PLC0415  # slow to load

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))
    return Interval(fmean(values) - half, fmean(values) + half)


def ratio_interval(totals: Sequence[float], counts: Sequence[int]) -> Interval:
    """`mean_interval` from each cluster's total and count, such as a row's loss and its tokens.

    mean = Σ_c total_c / Σ_c count_c;  SE² = C/(C − 1) · Σ_c (total_c − mean·count_c)²/(Σ_c count_c)²

    Raises: ValueError as `mean_interval`.
    """
    if bad := [total for total in totals if not isfinite(total)]:
        raise ValueError(f"{len(bad)} of {len(totals)} values are not finite (the first is {bad[0]})")
    clusters, n = len(totals), sum(counts)
    if clusters < 2:
        raise ValueError(f"{clusters} cluster has no spread; an interval needs at least two prompts")
    mean = fsum(totals) / n
    squares = fsum((total - mean * count) ** 2 for total, count in zip(totals, counts, strict=True))
    error = sqrt(clusters / (clusters - 1) * squares) / n
    return Interval(mean - Z * error, mean + Z * error)


def share_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Wilson's interval of a share whose samples come in clusters, with the number of trials that they are worth.

    n_eff = n/deff, and deff = SE²_clustered/(p̂(1 − p̂)/(n − 1)), at least 1. Like Wilson's own, it stays inside [0, 1],
    and one value per cluster gives exactly that one. Where the values are all 0 or all 1 nothing tells the design
    effect, and each cluster counts once.

    Args:
        values: 0 or 1, or chances in between such as pass@k.

    Reference: Franco et al. 2019, Journal of Survey Statistics and Methodology 7(3), Wilson with an effective sample
    size.

    Raises: ValueError as `mean_interval`, and for values outside [0, 1].
    """
    if bad := [value for value in values if not 0 <= value <= 1]:
        raise ValueError(f"{bad[0]} is no share; wanted values in [0, 1]")
    low, high = mean_interval(values, clusters)
    n, p, count = len(values), fmean(values), len(set(clusters))
    if count == n and set(values) <= {0.0, 1.0}:
        return wilson(round(sum(values)), n)
    if p in (0.0, 1.0):
        return wilson(round(p * count), count)
    variance = ((high - low) / (2 * Z)) ** 2
    effective = min(n * p * (1 - p) / ((n - 1) * variance), n) if variance else n
    scale = 1 + Z**2 / effective
    middle = (p + Z**2 / (2 * effective)) / scale
    half = Z * sqrt(p * (1 - p) / effective + Z**2 / (4 * effective**2)) / scale
    return Interval(middle - half, middle + half)


def share_or_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Wilson's interval where every value is 0 or 1, the normal one otherwise; both with clusters."""
    return share_interval(values, clusters) if set(values) <= {0.0, 1.0} else mean_interval(values, clusters)


def difference_interval(differences: Sequence[float], clusters: Sequence[Hashable], *, shares: bool) -> Interval:
    """Of a mean difference between two models that answered the same prompts: the clustered normal one.

    Prompts are as hard for one model as for the other; subtracting prompt by prompt takes that out of the spread,
    which two separate intervals leave in.

    Args:
        shares: the values subtracted were 0 or 1. Where no prompt tells the two apart, the normal interval would have
            no width; as many prompts could still have missed a difference as large as Wilson's upper bound.

    Raises: ValueError as `mean_interval`.
    """
    if shares and not any(differences):
        most = wilson(0, len(set(clusters))).high
        return Interval(-most, most)
    return mean_interval(differences, clusters)
