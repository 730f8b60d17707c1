"""Which interval a score gets."""

import pytest

from oneloop.record.statistics import Z, difference_interval, mean_interval, share_interval, share_or_mean, wilson


def test_one_answer_per_prompt_is_a_share() -> None:
    assert share_or_mean([1.0, 0.0, 1.0, 1.0], "abcd") == wilson(3, 4)


def test_graded_answers_are_a_mean() -> None:
    assert share_or_mean([0.5, 0.0, 1.0], "abc") == mean_interval([0.5, 0.0, 1.0], "abc")


def test_repeated_answers_count_for_what_they_are_worth() -> None:
    """Four prompts, two samples each, which always agree: worth exactly four trials, not eight.

    p = ¾, n = 8: clustered SE² = 4/3 · Σ (2·(x − ¾))²/64 = 4/3 · 4·(9/16 + 3/16)/64 = 1/16; the binomial one with
    n − 1 is (3/16)/7; so deff = 7/3 and n_eff = 24/7 = 3.43 (the unbiased spread of four clusters is worth a bit less).
    """
    agreeing = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    low, high = share_or_mean(agreeing, "aabbccdd")
    n, p = 24 / 7, 0.75
    scale = 1 + Z**2 / n
    middle, half = (p + Z**2 / (2 * n)) / scale, Z * (p * (1 - p) / n + Z**2 / (4 * n * n)) ** 0.5 / scale
    assert (low, high) == pytest.approx((middle - half, middle + half))
    assert low < wilson(6, 8).low and high > wilson(6, 8).high


def test_samples_that_differ_as_if_unrelated_are_not_worth_more_than_they_are() -> None:
    """Each prompt half right: no spread between prompts at all, and still only eight trials."""
    assert share_or_mean([1.0, 0.0] * 4, "aabbccdd") == pytest.approx(wilson(4, 8))


@pytest.mark.parametrize("right", range(1, 40))
def test_a_share_stays_inside_its_bounds(right: int) -> None:
    values = [1.0] * right + [0.0] * (40 - right)
    low, high = share_or_mean(values, [number // 4 for number in range(40)])
    assert 0 < low < right / 40 < high < 1


def test_chances_are_shares() -> None:
    """pass@2 of three prompts with chances ½, 0, 1."""
    low, high = share_interval([0.5, 0.0, 1.0], "abc")
    assert 0 < low < 0.5 < high < 1
    with pytest.raises(ValueError, match=r"1\.5 is no share"):
        share_interval([1.5, 0.0], "ab")


def test_a_paired_difference_leaves_out_what_prompts_have_in_common() -> None:
    """Prompts from 0 to 1 hard; the second model is 0.1 ± 0.01 better on each: the pairs see it, two means cannot."""
    hard = [number / 10 for number in range(11)]
    better = [0.1 + 0.01 * (-1) ** number for number in range(11)]
    low, high = difference_interval(better, range(11), shares=False)
    assert 0.08 < low < high < 0.12
    assert (low, high) == mean_interval(better)
    first, second = mean_interval(hard), mean_interval([a + b for a, b in zip(hard, better, strict=True)])
    assert first.high > second.low


def test_no_difference_on_a_few_prompts_is_not_none() -> None:
    assert difference_interval([0.0] * 5, range(5), shares=True) == (-wilson(0, 5).high, wilson(0, 5).high)
    assert difference_interval([0.0] * 5, range(5), shares=False) == (0.0, 0.0)


def test_all_right_is_not_certain() -> None:
    """Six samples of three prompts, all right: three prompts say so, not six."""
    assert share_or_mean([1.0] * 6, "aabbcc") == wilson(3, 3)
    assert share_or_mean([0.0] * 6, "aabbcc").high > 0.5
