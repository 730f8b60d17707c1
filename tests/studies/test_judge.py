"""Verdicts come from intervals: all of one on the claim's side, all on the other, or neither."""

import pytest

from oneloop.record.statistics import Interval, student_interval
from oneloop.studies.judge import above, below, every, inside, minus, over, said, short
from oneloop.studies.study import Point, Verdict

HOLDS, FAILS, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.2, HOLDS), (-0.2, -0.1, FAILS), (-0.1, 0.2, OPEN), (0.0, 0.2, OPEN)]
)
def test_above_wants_the_whole_interval(low, high, verdict) -> None:
    assert above(Interval(low, high), 0) == verdict
    assert below(Interval(-high, -low), 0) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.95, 1.05, HOLDS), (1, 1, HOLDS), (1.2, 1.3, FAILS), (0.5, 0.8, FAILS), (0.8, 1.0, OPEN), (0.5, 2.0, OPEN)],
)
def test_inside_is_a_test_of_equivalence(low, high, verdict) -> None:
    assert inside(Interval(low, high), 0.9, 1.1) == verdict


def test_one_part_that_fails_is_enough_and_one_open_part_leaves_it_open() -> None:
    assert every([HOLDS, HOLDS]) == HOLDS
    assert every([HOLDS, OPEN]) == OPEN
    assert every([OPEN, FAILS, HOLDS]) == FAILS


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by 100, the two conditions by exactly 1: only paired does it show."""
    one, other = Point("a", 1, (101.0, 201.0, 301.0)), Point("b", 1, (100.0, 200.0, 300.0))
    assert above(minus(one, other).interval, 0.99) == HOLDS
    assert one.interval.low < other.interval.high
    assert over(one, other).values == (1.01, 1.005, 301 / 300)


def test_the_interval_of_a_few_values_is_students() -> None:
    """1, 2, 3, 4, 5: mean 3, s = √2.5, t(4; 0.975) = 2.7764, half = 2.7764·1.5811/√5 = 1.9632."""
    low, high = student_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (low, high) == (pytest.approx(3 - 1.96324, abs=1e-4), pytest.approx(3 + 1.96324, abs=1e-4))
    assert student_interval([2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [float("inf"), 0.0]])
def test_an_interval_of_nothing_is_refused(values) -> None:
    with pytest.raises(ValueError, match=r"spread|finite"):
        student_interval(values)


def test_numbers_are_short() -> None:
    assert [short(x) for x in (0.5, -1e-20, 1234.0, 28123.0, 1e-5)] == ["0.5", "0", "1230", "28100", "1e−05"]
    assert said(Point("a", 1, (1.0, 1.0))) == "1"
