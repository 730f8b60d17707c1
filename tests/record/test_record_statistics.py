"""Intervals against published and hand-made numbers."""

from math import nan, sqrt

import pytest

from oneloop.record.statistics import Z, mean_interval, share_interval, share_or_mean, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),  # z²/(n + z²) = 3.8415/13.8415
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
    ],
)
def test_wilson_against_known_numbers(successes, trials, low, high):
    found = wilson(successes, trials)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_wilson_against_its_formula():
    p, n, z = 0.3, 20, Z
    centre, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(6, 20) == pytest.approx(((centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_share(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes in {trials} trials"):
        wilson(successes, trials)


def test_without_clusters_it_is_the_textbook_one():
    # mean 2.5; s² = (2.25 + 0.25 + 0.25 + 2.25)/3 = 5/3; SE = √(5/3/4) = 0.6455
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (low, high) == pytest.approx((2.5 - Z * sqrt(5 / 12), 2.5 + Z * sqrt(5 / 12)))


def test_clusters_against_the_double_sum_over_pairs():
    values, clusters = [1.0, 0.5, 0.0, 0.0, 1.0, 0.5, 1.0], ["a", "a", "b", "b", "c", "c", "c"]
    n, mean = len(values), sum(values) / len(values)
    total = 0.0
    for i in range(n):
        for j in range(n):
            if clusters[i] == clusters[j]:
                total += (values[i] - mean) * (values[j] - mean)
    error = sqrt(3 / 2 * total / n**2)
    assert mean_interval(values, clusters) == pytest.approx((mean - Z * error, mean + Z * error))


def test_copies_of_a_sample_add_no_knowledge():
    values = [0.0, 1.0, 0.5, 1.0]
    once = mean_interval(values)
    copied = mean_interval([v for v in values for _ in range(8)], [i for i in range(4) for _ in range(8)])
    assert copied == pytest.approx(once)
    blind = mean_interval([v for v in values for _ in range(8)])
    assert blind.high - blind.low < (once.high - once.low) / 2


@pytest.mark.parametrize(
    ("values", "clusters", "words"),
    [
        ([], None, "0 cluster"),
        ([1.0], None, "1 cluster"),
        ([1.0, 0.0], ["a", "a"], "1 cluster"),
        ([1.0, nan], None, "1 of 2 values are not finite"),
        ([1.0, 0.0], ["a"], "1 clusters for 2 values"),
    ],
)
def test_no_interval_without_spread(values, clusters, words):
    with pytest.raises(ValueError, match=words):
        mean_interval(values, clusters)


def test_share_or_mean_takes_wilson_for_one_yes_or_no_a_prompt():
    assert share_or_mean([1.0, 0.0, 1.0], ["a", "b", "c"]) == wilson(2, 3)
    assert share_or_mean([1.0, 0.5, 1.0], ["a", "b", "c"]) == mean_interval([1.0, 0.5, 1.0])
    assert share_or_mean([1.0, 0.0, 1.0], ["a", "a", "b"]) == share_interval([1.0, 0.0, 1.0], [0, 0, 1])
