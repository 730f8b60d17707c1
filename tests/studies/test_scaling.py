"""The forms of Gao et al. are fitted as they are written, and the KL of best of n is that of its distribution."""

from itertools import product
from math import log, sqrt

import numpy as np
import pytest

from oneloop.studies import proxy
from oneloop.studies.scaling import LOG, SQUARE, best_of_kl, best_of_kl_formula, bootstrapped, fitted

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


def test_a_runs_reward_at_a_distance_lies_between_its_steps() -> None:
    """Gold, proxy and KL of three steps; √KL goes 0, 1, 0.9, 2, and the way back counts for nothing."""
    course = [(0.5, 0.0, 0.0), (1.5, 2.0, 1.0), (1.7, 2.5, 0.81), (0.5, 6.0, 4.0)]
    assert proxy.at(course, 0, 0.5) == pytest.approx(0.5)
    assert proxy.at(course, 1, 1.5) == pytest.approx((2.5 + 6.0) / 2)
    assert proxy.at(course, 1, 9.0) == pytest.approx(6.0)
