"""Rule-based rewards: what counts as the same answer, and that nothing is ever evaluated."""

import pytest

from oneloop.errors import ConfigError
from oneloop.rewards import FormatReward, exact_match, numeric_match

EXACT = [  # completion, answer, reward
    ("5", "5", 1.0),
    (" 5\n", "5 ", 1.0),
    ("5", 5, 1.0),
    ("0.5", 0.5, 1.0),
    ("5", "5.0", 0.0),
    ("Paris", "paris", 0.0),
    ("", "5", 0.0),
    ("5 5", "5", 0.0),
    ("5", None, None),
]


@pytest.mark.parametrize(("text", "answer", "value"), EXACT)
def test_exact_match(text: str, answer: object, value: float | None) -> None:
    assert exact_match([text], answer=[answer], prompts=["?"]) == [value]


NUMERIC = [
    ("the answer is 5", "5", 1.0),
    ("7.0", 7, 1.0),
    ("7", 7.0, 1.0),
    ("007", 7, 1.0),
    ("first 3, then 5.", 5, 1.0),
    ("5 is not 3", 5, 0.0),
    ("-5", -5, 1.0),
    ("-5", 5, 0.0),
    ("+5", "5", 1.0),
    ("8-5", 5, 1.0),  # a minus between numbers is no sign
    ("8 - 5", 5, 1.0),
    ("x = -2.50", "-2.5", 1.0),
    (".5", 0.5, 1.0),
    (".5", 5, 0.0),
    ("2e3", 2000, 1.0),
    ("2e3", 3, 0.0),
    ("1/2", 0.5, 1.0),
    ("0.5", "1/2", 1.0),
    ("3/4", 4, 0.0),
    ("1,234", 1234, 1.0),
    ("1,234", 234, 0.0),
    ("1,234.5", "1234.5", 1.0),
    ("5+3=8,8-4=4", 4, 1.0),
    ("1/0", 1, 0.0),
    ("", 5, 0.0),
    ("five", 5, 0.0),
    ("nan", "5", 0.0),
    ("2+3", 5, 0.0),  # read, never computed
    ("9" * 400 + "5", 5, 0.0),
    ("9" * 9000, 5, 0.0),
    ("1e999999999", 5, 0.0),
    ("0.1", 0.1, 1.0),
    ("0.30000000000000004", "0.3", 0.0),
    ("5", "five", None),
    ("5", "", None),
    ("5", None, None),
    ("nan", float("nan"), None),
    ("1", "1/0", None),
]


@pytest.mark.parametrize(("text", "answer", "value"), NUMERIC)
def test_numeric_match(text: str, answer: object, value: float | None) -> None:
    assert numeric_match([text], answer=[answer]) == [value]


@pytest.mark.parametrize("function", [exact_match, numeric_match])
def test_answers_must_line_up_with_completions(function) -> None:
    assert function(["1", "2"], answer=["1", "3"]) == [1.0, 0.0]
    with pytest.raises(ValueError):
        function(["1", "2"], answer=["1"])


@pytest.mark.parametrize(("text", "value"), [
    ("<a>5</a>", 1.0), ("x <a>5</a>", 0.0), ("<a>5</a>\n", 0.0), ("<a></a>", 0.0), ("", 0.0),
])  # fmt: skip
def test_format_reward_wants_the_whole_completion(text: str, value: float) -> None:
    reward = FormatReward(r"<a>\d+</a>")
    assert reward([text], answer=["5"]) == [value]
    assert reward == FormatReward(r"<a>\d+</a>")


def test_a_pattern_that_cannot_be_compiled_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"FormatReward\('\('\) is no regular expression"):
        FormatReward("(")
