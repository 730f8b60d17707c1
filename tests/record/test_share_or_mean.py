"""Which interval a score gets."""

from oneloop.record.statistics import mean_interval, share_or_mean, wilson


def test_one_answer_per_prompt_is_a_share() -> None:
    assert share_or_mean([1.0, 0.0, 1.0, 1.0], "abcd") == wilson(3, 4)


def test_graded_or_repeated_answers_are_a_mean() -> None:
    assert share_or_mean([0.5, 0.0, 1.0], "abc") == mean_interval([0.5, 0.0, 1.0], "abc")
    assert share_or_mean([1.0, 0.0, 1.0, 1.0], "aabb") == mean_interval([1.0, 0.0, 1.0, 1.0], "aabb")


def test_all_right_is_not_certain() -> None:
    """Six samples of three prompts, all right: three prompts say so, not six."""
    assert share_or_mean([1.0] * 6, "aabbcc") == wilson(3, 3)
    assert share_or_mean([0.0] * 6, "aabbcc").high > 0.5
