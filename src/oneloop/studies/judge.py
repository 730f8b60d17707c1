"""From intervals to a verdict: never from a mean alone, and never written by hand."""

from __future__ import annotations

from collections.abc import Iterable

from oneloop.record.statistics import Interval
from oneloop.studies.study import Point, Verdict


def above(interval: Interval, bound: float) -> Verdict:
    """Whether the quantity exceeds `bound`: the whole interval has to be on one side."""
    return Verdict.HOLDS if interval.low > bound else Verdict.FAILS if interval.high < bound else Verdict.OPEN


def below(interval: Interval, bound: float) -> Verdict:
    return above(Interval(-interval.high, -interval.low), -bound)


def inside(interval: Interval, low: float, high: float) -> Verdict:
    """Whether the quantity is within [low, high] (a test of equivalence): the whole interval inside, or outside."""
    if low <= interval.low and interval.high <= high:
        return Verdict.HOLDS
    return Verdict.FAILS if interval.high < low or interval.low > high else Verdict.OPEN


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """A claim of several parts: one that fails is enough, and one that is open leaves it open."""
    found = set(verdicts)
    if Verdict.FAILS in found:
        return Verdict.FAILS
    return Verdict.OPEN if Verdict.OPEN in found else Verdict.HOLDS


def minus(one: Point, other: Point) -> Point:
    """Seed by seed: what both have in common of a seed goes out of the spread."""
    values = tuple(a - b for a, b in zip(one.values, other.values, strict=True))
    return Point(f"{one.series} − {other.series}", one.x, values)


def over(one: Point, other: Point) -> Point:
    """Seed by seed."""
    values = tuple(a / b for a, b in zip(one.values, other.values, strict=True))
    return Point(f"{one.series} / {other.series}", one.x, values)


def said(point: Point) -> str:
    """Mean and interval, short; the mean alone where no seed differs from another.

    >>> said(Point("a", 1, (0.5, 0.25))), said(Point("a", 1, (0.5, 0.5)))
    ('0.375 [−1.21, 1.96]', '0.5')
    """
    low, high = point.interval
    exact = high - low <= 1e-6 * max(abs(point.mean), 1e-6)
    return short(point.mean) if exact else f"{short(point.mean)} [{short(low)}, {short(high)}]"


def short(value: float) -> str:
    """Three digits, a true minus; what rounding leaves of 0 is 0.

    >>> short(-0.012345), short(1234.5), short(2e-17)
    ('−0.0123', '1230', '0')
    """
    if abs(value) < 1e-9:
        return "0"
    text = f"{value:.3g}"
    if "e" in text and 1e3 <= abs(value) < 1e6:
        text = f"{float(text):.0f}"
    return text.replace("-", "−")
