"""benchmarks/ratios.py: which setting of a peer ours is measured against, and when a goal is met."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
FAILED = {"error": "RuntimeError: no"}


@pytest.fixture
def ratios(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import ratios

    return ratios


@pytest.fixture
def case(ratios):
    from cases.values import CASES, Best

    best = Best(("trl-rows-1", "trl-rows-4", "trl-rows-16"), wanted=0.5, usual="trl-rows-16")
    return replace(CASES["sft"], best=best, rounds=4)


def took(*medians: float) -> list[dict]:
    """A process a round, of three steps with that median."""
    return [{"seconds": [0.5 * value, value, 9 * value]} for value in medians]


def test_the_two_fastest_of_the_first_round_stay(ratios, case) -> None:
    runs = {"oneloop": took(1.0), "trl-rows-1": took(3.0), "trl-rows-4": took(2.0), "trl-rows-16": took(7.0)}
    assert ratios.finalists(case.best, runs) == ["trl-rows-4", "trl-rows-1"]
    assert ratios.finalists(case.best, runs | {"trl-rows-4": [FAILED]}) == ["trl-rows-1", "trl-rows-16"]
    assert ratios.finalists(None, runs) == []


def test_ours_is_measured_against_the_least_median_of_all_rounds(ratios, case) -> None:
    """The winner of the first round loses the others; one that was left out never met the slower hours after it."""
    runs = {
        "oneloop": took(1.0, 1.0, 1.0, 1.2),
        "trl-rows-1": took(2.1, 2.5, 2.5, 2.4),
        "trl-rows-4": took(2.0, 3.0, 4.0, 4.0),
        "trl-rows-16": took(2.2),
    }
    found = ratios.against_best(case, runs)
    assert found["best"]["engine"] == "trl-rows-1"
    assert found["best"]["rounds"] == [0.4762, 0.4, 0.4, 0.5]
    assert found["best"]["later_rounds"] == ["trl-rows-4", "trl-rows-1"]
    assert found["usual"]["engine"] == "trl-rows-16" and found["usual"]["rounds"] == [0.4545]
    assert found["usual"]["reached"] is None


@pytest.mark.parametrize(
    ("ours", "reached"),
    [
        ((0.4, 0.4, 0.5, 0.6), False),  # the median is 0.45; the upper quartile 0.525
        ((0.4, 0.4, 0.5, 0.5), True),
        ((0.1, 0.1, 0.1), None),  # too few rounds to say
    ],
)
def test_a_goal_is_met_by_the_upper_quartile_of_enough_rounds(ratios, ours, reached) -> None:
    ratio = ratios.compared_with(took(*ours), took(*[1.0] * len(ours)), 0.5, rounds=4)
    assert ratio["reached"] is reached


def test_a_peer_that_never_ran_leaves_no_ratio(ratios, case) -> None:
    runs = {"oneloop": took(1.0), "trl-rows-1": [FAILED]}
    assert ratios.against_best(case, runs) == {}
    assert ratios.middle(runs["trl-rows-1"]) == math.inf
    assert ratios.compared_with(runs["oneloop"], runs["trl-rows-1"], 0.5, 1) == {"wanted": 0.5, "rounds": []}


def test_losses_are_compared_step_by_step(ratios) -> None:
    runs = {
        "oneloop": [{"losses": [2.0, 1.0]}],
        "trl-rows-1": [{"losses": [2.0, 1.1]}],
        "trl-rows-4": [{"losses": []}],
        "trl-rows-16": [FAILED],
    }
    assert ratios.loss_gaps("oneloop", runs) == {"trl-rows-1": pytest.approx(0.1)}


def test_every_setting_divides_a_step(ratios) -> None:
    from cases.values import CASES, rows_a_pass

    for case in CASES.values():
        samples = case.rows * (case.group if case.kind in ("grpo", "accuracy") else 1)
        engines = [peer.engine for peer in case.peers] + list(case.best.settings if case.best else ())
        rows = [rows_a_pass(engine) for engine in engines]
        assert all(samples % count == 0 for count in rows if count)
        assert case.best is None or not case.best.usual or case.best.usual in case.best.settings
