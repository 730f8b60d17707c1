"""Which rows can be graded at all, and what is said of the others."""

import json
from typing import Any

import pytest

from oneloop.errors import ConfigError
from oneloop.rewards.code import UnitTests, forms
from oneloop.rewards.code.forms import Calls, NotGradable, Scripts, Texts
from oneloop.rewards.code.inside.text import Ungradable, parsed


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_the_three_forms() -> None:
    assert forms.tests_of([{"input": "1", "output": "2"}]) == Scripts(((b"1", "2"),))
    assert forms.tests_of('[{"input": "1", "output": "2"}]', "f") == Scripts(((b"1", "2"),))
    assert forms.tests_of(({"args": [1], "kwargs": {"a": 2}, "expected": None},), "f") == Calls(
        "f", ((b'[[1],[["a",2]]]', None),)
    )
    assert forms.tests_of("assert f()", "") == Texts(("assert f()",), True, None)
    assert forms.tests_of(["assert f()"], "f") == Texts(("assert f()",), False, "f")
    # JSON of another kind is Python, and holds no assert
    assert isinstance(forms.tests_of('["assert f()"]'), Texts)
    digits = "7" * 9000
    calls = forms.tests_of(f'[{{"args": [], "expected": -{digits}}}]', "f")
    assert isinstance(calls, Calls) and f"{-calls.tests[0][1]:x}" == f"{(10**9000 - 1) // 9 * 7:x}"


ONE = {"args": [], "expected": 1}


@pytest.mark.parametrize(
    ("tests", "entry_point", "why"),
    [
        (None, "f", "no tests"),
        ([], "f", "no tests"),
        ("", "f", "empty"),
        (" \n", "f", "empty"),
        ({}, "f", "tests is a dict"),
        (5, "f", "tests is a int"),
        ([1], "f", "tests is a list"),
        (["assert f()", {}], "f", "tests is a list"),
        (["assert f()", ""], "f", "empty"),
        ([{"input": "1"}], None, "not every test"),
        ([{}], "f", "not every test"),
        ([{"input": 1, "output": "2"}], None, "not both text"),
        ([{"input": "\ud800", "output": ""}], None, "surrogate"),
        ([{"input": "1", "output": "2"}, ONE], "f", "not every test"),
        ([{"input": "1", "output": "2", **ONE}], "f", "not every"),
        ([ONE], None, "entry_point"),
        ([ONE], "", "entry_point"),
        ([ONE], 5, "entry_point"),
        ([ONE], "a b", "'a b'"),
        ([ONE], "def", "'def'"),
        ([{"args": 1, "expected": 1}], "f", "args of a test"),
        ([{"args": []}], "f", "not every test"),
        ([{"args": [], "kwargs": [], "expected": 1}], "f", "kwargs"),
        ([{"kwargs": {1: 1}, "expected": 1}], "f", "kwargs"),
        ([{"args": [object()], "expected": 1}], "f", "type object"),
        ([{"args": ["a" * (9 << 20)], "expected": 1}], "f", "bytes"),
        ([{"args": [], "expected": {1}}], "f", "holds a set"),
        ([{"args": [], "expected": [b""]}], "f", "holds a bytes"),
        ([{"args": [], "expected": {1: 1, "1": 1}}], "f", "twice"),
        ([{"args": [], "expected": {None: 1}}], "f", "keys"),
        ([{"args": [], "expected": nested(101)}], "f", "holds a list"),
        ('[{"args": []}]', "f", "not every test"),
        ("a" * (9 << 20), "f", "bytes"),
    ],
)
def test_rows_that_cannot_be_graded(tests: Any, entry_point: Any, why: str) -> None:
    with pytest.raises(NotGradable, match=why):
        forms.tests_of(tests, entry_point)


@pytest.mark.parametrize(
    ("text", "entry_point", "why"),
    [
        ("assert f(", None, "SyntaxError"),
        ("assert\0", None, "ValueError|SyntaxError"),
        ("x = f()", None, "no assert"),
        ("'assert f()'", None, "no assert"),
        ("def check(candidate):\n    assert candidate()", None, "entry_point"),
        ("assert f() == g()", "f", "name 'g'"),
        ("def t():\n    return h()\nassert f()", "f", "name 'h'"),
        ("import os.path\nassert f() == path", "f", "name 'path'"),
        ("assert " + "(" * 5000 + ")" * 5000, None, "no Python"),
        ("assert f() and __file__", "f", "__file__"),
        ("from math import *\nassert f() == flor", "f", "name 'flor'"),
    ],
)
def test_texts_that_cannot_be_graded(text: str, entry_point: str | None, why: str) -> None:
    with pytest.raises(Ungradable, match=why):
        parsed(text, entry_point, alone=True)


@pytest.mark.parametrize(
    ("text", "entry_point", "program"),
    [
        ("assert f(x) == len([a for a in b])", None, {"f", "x", "b"}),
        ("import a.b as c, d.e\nfrom g import h\nassert f(c, d, h)", None, {"f"}),
        ("def g(x):\n    y = x\n    return f(y, z)\nassert g(1)", None, {"f", "z"}),
        ("class A(B):\n    c = d\n    def e(self):\n        return c\nassert A", None, {"B", "d", "c"}),
        (
            "for a, *b in f():\n    with g() as c:\n        assert (d := a)\ntry:\n    1\nexcept E as e:\n    e",
            None,
            {"f", "g", "E"},
        ),
        ("def g():\n    global a\n    a = 1\nassert a", None, set[str]()),
        ("match f():\n    case P(x=y) | [y, *_]:\n        assert y", None, {"f", "P"}),
        ("assert (lambda a, *, b=c: a + b)(1)", None, {"c"}),
        ("assert print", None, set[str]()),
        ("assert f(g)", "f", None),
        ("assert __name__ and __doc__ is None", None, set[str]()),
        ("from math import *\nassert floor(f()) == pi", None, {"f"}),
        ("from no_such_module import *\nassert f()", None, {"f"}),
        ("assert f() == f\nf = 1", None, set[str]()),
    ],
)
def test_free_names_are_the_program_s(text: str, entry_point: str | None, program: set[str] | None) -> None:
    if program is None:
        with pytest.raises(Ungradable):
            parsed(text, entry_point, alone=True)
    else:
        assert set(parsed(text, entry_point, alone=True).program) == program


@pytest.mark.parametrize(
    ("text", "alone", "units"),
    [
        ("assert f(1)\nx = 1\nassert f(2)", True, 2),
        ("assert f(1)\nassert f(2)", False, 1),
        ("for x in f():\n    assert x", True, 1),
        ("def check(c):\n    assert c\nassert f()", True, 2),
        ("def check(c):\n    assert c\ncheck(f)\ncheck(f)", True, 2),
        ("def check(c):\n    assert c\nif 1:\n    check(f)", True, 1),
        ("assert f()\nassert_ = 1", True, 1),
    ],
)
def test_units(text: str, alone: bool, units: int) -> None:
    assert parsed(text, "f", alone).units == units


def test_each_reason_is_logged_once_and_short(caplog: pytest.LogCaptureFixture) -> None:
    hostile = f"\x1b[31m\n{'a' * 500}"
    rows: list[Any] = [
        None,
        None,
        "x = 1",
        "x = 2",
        f"assert {'n' * 300}",
        [{"args": [], "expected": 1}],
        "assert f() == g",
    ]
    names: list[Any] = ["f", "f", "f", "f", "f", hostile, "f"]
    reward = UnitTests(workers=3)
    with caplog.at_level("WARNING"):
        assert reward(["def f(): pass"] * len(rows), rows, names) == [None] * len(rows)
        assert reward(["def f(): pass"] * len(rows), rows, names) == [None] * len(rows)
    lines = caplog.messages
    assert len(lines) == len(set(lines)) <= 5
    assert all(len(line) <= 200 and line.isprintable() for line in lines)


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        UnitTests()(["a", "b"], ["assert f()"])
    assert UnitTests()([], []) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": 0},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"memory_mb": 1},
        {"output_mb": 0},
        {"scratch_mb": 0},
        {"threads": 0},
        {"workers": 0},
    ],
)
def test_settings_that_cannot_work(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        UnitTests(**wrong)


def test_json_of_a_table_is_read_as_the_table() -> None:
    rows = [{"args": [1, [2]], "kwargs": {}, "expected": {"a": float("nan")}}]
    assert repr(forms.tests_of(json.dumps(rows), "f")) == repr(forms.tests_of(rows, "f"))
