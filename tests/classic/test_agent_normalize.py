"""Running moments against those of everything at once."""

import json

import numpy as np

from oneloop.classic.normalize import LIMIT, Moments, Observations, Rewards


def test_moments_are_those_of_all_rows_whatever_the_pieces() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (100, 4))
    moments = Moments(4)
    for piece in np.split(rows, [1, 7, 50]):
        moments.add(piece)
    # the start counts as 1e-4 rows
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-4)


def test_observations_are_normalised_after_they_were_taken_in_and_the_state_goes_through_json() -> None:
    rng = np.random.default_rng(1)
    seen = Observations(3, True)
    for _ in range(50):
        rows = rng.normal([0, 5, -100], [1, 10, 0.1], (8, 3))
        shown = seen.seen(rows)
    assert np.abs(shown).max() < 5
    again = Observations(3, True)
    again.restore(json.loads(json.dumps(seen.state())))
    np.testing.assert_array_equal(again(rows), shown)
    assert seen(np.full((1, 3), 1e9)).tolist() == [[LIMIT] * 3]
    assert Observations(3, False).seen(rows) is rows


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return_so_far() -> None:
    """Slow oracle: R_t = γ R_(t−1) + r_t, from 0 again after an episode's end; mean untouched."""
    rng = np.random.default_rng(2)
    rewards, ended = rng.normal(1, 3, (40, 2)), rng.random((40, 2)) < 0.1
    scaled = Rewards(2, 0.9, True)
    got = [scaled.scaled(rewards[:25], ended[:25]), scaled.scaled(rewards[25:], ended[25:])]
    running, returns = [0.0, 0.0], []
    for t in range(40):
        for n in range(2):
            running[n] = 0.9 * running[n] + rewards[t, n]
            returns.append(running[n])
            running[n] = 0.0 if ended[t, n] else running[n]
    np.testing.assert_allclose(got[0], rewards[:25] / np.std(returns[:50]), rtol=1e-4)
    np.testing.assert_allclose(got[1], rewards[25:] / np.std(returns), rtol=1e-4)
    assert Rewards(2, 0.9, False).scaled(rewards, ended) is rewards
