"""The forms of Gao et al. are fitted as they are written, and the KL of best of n is that of its distribution."""

from dataclasses import replace
from itertools import product
from math import log, sqrt

import numpy as np
import pytest

from oneloop.studies import proxy
from oneloop.studies.scaling import LOG, SQUARE, best_of_kl, best_of_kl_formula, bootstrapped, fitted
from oneloop.studies.study import Panel, Point

DISTANCES = (0.4, 0.8, 1.1, 1.5, 1.9)


@pytest.mark.parametrize(
    ("form", "other", "reward"),
    [(SQUARE, LOG, lambda d: d * (1.5 - 0.4 * d)), (LOG, SQUARE, lambda d: d * (1.5 - 0.4 * log(d)))],
    ids=["best of n", "reinforcement learning"],
)
def test_a_curve_of_a_form_gives_its_coefficients_back(form, other, reward) -> None:
    gained = [reward(distance) for distance in DISTANCES]
    found = fitted(form, DISTANCES, gained)
    assert (found.alpha, found.beta) == (pytest.approx(1.5), pytest.approx(0.4))
    assert found.error == pytest.approx(0, abs=1e-12)
    assert fitted(other, DISTANCES, gained).error > 0.005


def test_what_a_form_leaves_is_a_root_mean_square() -> None:
    """Two points and two coefficients: nothing is left. A third point leaves some."""
    assert fitted(SQUARE, (1.0, 2.0), (0.0, 2.0)).error == pytest.approx(0, abs=1e-12)
    found = fitted(SQUARE, (1.0, 2.0, 3.0), (0.0, 2.0, 0.0))
    left = [
        value - distance * (found.alpha - found.beta * distance)
        for distance, value in ((1.0, 0.0), (2.0, 2.0), (3.0, 0.0))
    ]
    assert found.error == pytest.approx(sqrt(sum(one**2 for one in left) / 3))


@pytest.mark.parametrize(("count", "answers"), [(1, 4), (2, 4), (3, 3)])
def test_the_kl_of_best_of_n_is_that_of_all_draws(count: int, answers: int) -> None:
    """Every one of Aⁿ equally likely draws; the largest of each is taken."""
    taken = np.bincount([max(draw) for draw in product(range(answers), repeat=count)], minlength=answers)
    chance = taken / answers**count
    assert best_of_kl(count, answers) == pytest.approx(float((chance * np.log(chance * answers)).sum()), abs=1e-12)


def test_the_formula_is_what_it_comes_to_of_many_answers() -> None:
    assert best_of_kl(8, 1_000_000) == pytest.approx(best_of_kl_formula(8), abs=1e-4)
    assert best_of_kl_formula(8) == pytest.approx(log(8) - 7 / 8)
    assert best_of_kl(256, 64) < log(64) < best_of_kl_formula(256)


def test_a_bootstrap_is_about_as_wide_as_a_normal_interval() -> None:
    values = [float(value) for value in np.random.default_rng(0).normal(3, 2, 50)]
    low, high = bootstrapped(values)
    half = 1.96 * float(np.std(values)) / sqrt(50)
    mean = float(np.mean(values))
    assert (low, high) == (pytest.approx(mean - half, abs=0.1 * half), pytest.approx(mean + half, abs=0.1 * half))
    assert bootstrapped(values) == (low, high)


COURSE = [(0.5, 0.0, 0.0), (1.5, 2.0, 1.0), (1.7, 2.5, 0.81), (0.5, 6.0, 4.0)]
"""Gold, proxy and KL before the first step and after each; √KL goes 0, 1, 0.9, 2."""


def test_a_runs_reward_at_a_distance_lies_between_its_steps() -> None:
    """Those between which it first comes so far; it has none where it never does."""
    assert proxy.at(COURSE, 0, 0.5) == pytest.approx(0.5)
    assert proxy.at(COURSE, 0, 0.95) == pytest.approx(0.95)
    assert proxy.at(COURSE, 1, 1.5) == pytest.approx(2.5 + 3.5 * (1.5 - 0.9) / (2.0 - 0.9))
    assert proxy.at(COURSE, 1, 2.0) == pytest.approx(6.0)
    assert proxy.at(COURSE, 1, 2.01) is None


def test_a_distance_that_one_seed_does_not_reach_is_no_point() -> None:
    short = [*COURSE[:-1], (0.5, 3.0, 1.44)]
    looks = [[(0.1 * place, 0.2 * place) for place in range(len(proxy.BEST_OF))]] * 2
    panels = proxy._by_distance("heavy", proxy.HEAVY, [COURSE, short], looks, [])
    reached = tuple(distance for distance in proxy.DISTANCES if distance <= 1.2)
    assert 0 < len(reached) < len(proxy.DISTANCES)
    for panel in panels.values():
        assert tuple(point.x for point in panel.of(proxy.BEST)) == proxy.DISTANCES
        assert tuple(point.x for point in panel.of(proxy.POLICY)) == reached
        assert panel.series == (proxy.BEST, proxy.POLICY)


def test_a_form_is_fitted_where_its_way_was_looked_at() -> None:
    """PPO's follows its form wherever it comes, which is less far than best of n."""
    far = proxy.DISTANCES[:-2]
    points = [Point(proxy.BEST, d, (d * (1 - 0.2 * d),) * 2) for d in proxy.DISTANCES]
    points += [Point(proxy.POLICY, d, (d * (1 - 0.2 * log(d)),) * 2) for d in far]
    panel = Panel("gold", "√KL", tuple(points))
    found = proxy._forms({f"normal_{proxy.GOLD}": panel, f"heavy_{proxy.GOLD}": panel})
    for way in (proxy.BEST, proxy.POLICY):
        fitted_to = found["fit"].of(f"{way}, {proxy.HEAVY}")
        assert [point.mean for point in fitted_to] == pytest.approx([1.0, 0.2])


def test_a_peak_is_as_high_as_the_seeds_say_that_did_not_choose_it() -> None:
    points = [Point("gold", step, values) for step, values in ((0, (0.0, 0.0)), (4, (9.0, 1.0)), (8, (2.0, 3.0)))]
    top, end, lost = proxy._lost([replace(point, values=point.values * 2) for point in points])
    assert (top.x, top.values, end.values, lost.values) == (4, (1.0, 1.0), (3.0, 3.0), (-2.0, -2.0))
    told = proxy._told([replace(point, values=point.values * 2) for point in points], "step")
    assert told.endswith("the peak of gold at step 4; of the others it is 1 there and 3 at 8, difference −2")
