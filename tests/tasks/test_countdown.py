"""Countdown and the expressions that it is answered with: every number once, exact values, nothing evaluated."""

import ast
from fractions import Fraction
from operator import add, mul, sub, truediv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneloop.arithmetic import LONGEST, Leaf, Node, evaluated, numbers_in, parsed
from oneloop.errors import ConfigError
from oneloop.tasks import Countdown

SIGNS = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv}
leaves = st.integers(0, 99).map(Leaf)
expressions = st.recursive(leaves, lambda part: st.builds(Node, st.sampled_from("+-*/"), part, part), max_leaves=12)


def value_by_python(text: str) -> Fraction | None:
    """An oracle of its own: Python's parser for the tree, fractions for the values."""

    def walk(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return SIGNS[type(node.op)](walk(node.left), walk(node.right))
        assert isinstance(node, ast.Constant)
        return Fraction(node.value)

    try:
        return walk(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        return None


@given(expressions)  # of 12 leaves: never more than 11 parentheses deep
def test_what_is_written_reads_as_the_same_expression(expression) -> None:
    text = str(expression)
    if len(text) <= LONGEST:
        again = parsed(text)
        assert again is not None
        assert str(again) == text
        assert numbers_in(again) == numbers_in(expression)
        assert evaluated(again) == evaluated(expression) == value_by_python(text)


@pytest.mark.parametrize("text", [
    "", "+", "3+", "+3", "-3", "(3", "3)", "()", "3 3", "3 + 4", "3**4", "3//4", "3+x", "3.5", "1e3", "3\n",
    "__import__('os')", "(" * 300, "(" * 25 + "1" + ")" * 25, "9" * 300, "3(4)", "(3)(4)", "3=3", "\u0663", "\u00b2",
])  # fmt: skip
def test_no_expression(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize(("text", "value"), [
    ("8-3-2", 3), ("8-(3-2)", 7), ("12/4/3", 1), ("12/(4/3)", 9), ("2+3*4", 14), ("(2+3)*4", 20), ("1/3*3", 1),
    ("007", 7), ("4/(2-2)", None),
])  # fmt: skip
def test_values_are_exact(text: str, value: int | None) -> None:
    expression = parsed(text)
    assert expression is not None
    assert evaluated(expression) == value


ANSWERS = [  # 3,5,7>22: the text, well-formed, paid
    ("3*5=15,15+7=22;3*5+7", True, True),
    ("3*5=15,15+7=22;7+5*3", True, True),  # another expression of the same numbers
    ("5*3=15,7+15=23;7+5*3", True, True),  # the expression is verified, the working only has to be there
    ("3*5=15,15+7=22;(3*5)+(7)", True, True),
    ("3*5=15,15+7=22;22", True, False),  # the target itself is not made of the numbers
    ("3*5=15,15+7=22;15+7", True, False),
    ("3*5=15,15+7=22;3*5+7+0", True, False),
    ("3*5=15,15+7=22;3*5+7*3/3", True, False),  # a number twice
    ("3*5=15,15+7=22;3*5-7", True, False),
    ("3*5=15,15+7=22;3*(5+7", True, False),
    ("3*5=15,15+7=22;35-7", True, False),  # digits are not joined
    ("3*5=15,15+7=22", False, False),
    (";3*5+7", False, False),
    ("3*5+7", False, False),
    ("", False, False),
    ("3*5=15;3*5+7\n", False, False),
    ("3*5=15;3*5+7; ", False, False),
    ("3*5=15;__import__('os')", False, False),
    ("3*5=15;9**9**9", True, False),
    ("3*5=15;" + "(" * 100, True, False),
    ("3*5=15;" + "9" * 1_000_000, False, False),
]


@pytest.mark.parametrize(("text", "formed", "paid"), ANSWERS, ids=[text[:40] for text, _, _ in ANSWERS])
def test_every_number_once_and_the_target_exactly(text: str, formed: bool, paid: bool) -> None:
    task = Countdown()
    assert task.format_reward([text]) == [float(formed)]
    assert task.reward([text], answer=["22"], numbers=[[3, 5, 7]]) == [float(paid)]


def test_a_row_without_answer_or_numbers_cannot_be_scored() -> None:
    assert Countdown().reward(["1"] * 2, answer=[None, "1"], numbers=[[1], None]) == [None, None]


def test_rows_keep_their_bounds() -> None:
    task = Countdown(count=(2, 5), largest=20, most=60)
    for row in task.demonstrations(300, 0, "train"):
        assert 2 <= len(row["numbers"]) <= 5
        assert all(1 <= number <= 20 for number in row["numbers"])
        steps, _, expression = row["completion"].partition(";")
        for step in steps.split(","):
            left, _, result = step.partition("=")
            assert value_by_python(left) == int(result)
            assert 0 < int(result) <= 60
        assert value_by_python(expression) == int(row["answer"])
        assert row["prompt"] == f"{','.join(str(n) for n in row['numbers'])}>{row['answer']}:"


@pytest.mark.parametrize("settings", [
    {"count": (1, 3)}, {"count": (4, 3)}, {"count": (3, 7)}, {"largest": 1}, {"largest": 100, "most": 99},
    {"most": 10_000},
])  # fmt: skip
def test_settings_that_cannot_work(settings) -> None:
    with pytest.raises(ConfigError, match=r"Countdown\(.*wanted"):
        Countdown(**settings)
