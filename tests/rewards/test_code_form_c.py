"""What a text with asserts pays: the contract's sentences, each a row."""

import pytest

from code_rows import Graded, Row

F = "def f(a=0, b=0):\n    return a + b\n"
OBJECTS = """
class Box:
    made = 0
    def __init__(self, items=()):
        self.items, self._hidden = list(items), 1
        Box.made += 1
    def put(self, item, times=1):
        self.items += [item] * times
        return self
    def __len__(self):
        return len(self.items)
    def __eq__(self, other):
        return True
    __hash__ = None
class Wrong(ValueError):
    pass
class Full(Exception):
    def __str__(self):
        return "full!"
def box(*items):
    return Box(items)
def size(box):
    return len(box)
def fails(kind):
    import builtins
    raise (getattr(builtins, kind) if isinstance(kind, str) else kind)("why")
def same(box):
    return box
def ones():
    while True:
        yield 1
def few():
    yield 1
    raise KeyError("k")
LIMIT = 5
count = 0
def bump():
    global count
    count += 1
"""
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(2, 2) == 4\n"


def text(name: str, tests: str, value: float | None = 1.0, share: float | None = None, entry: str | None = None) -> Row:
    return Row(name, F + OBJECTS, tests, value, share, entry)


ROWS = (
    # units
    text("asserts", "assert f(1, 2) == 3\nassert f(2) == 2"),
    text("one of three fails", "assert f(1) == 1\nassert f(1) == 2\nassert f(2) == 2", 0.0, 2 / 3),
    text("one raises", "assert f(1) == 1\nassert f('a', 1) == 2\nassert f(2) == 2", 0.0, 2 / 3),
    text("a statement raises", "assert f(1) == 1\n1 / 0\nassert f(2) == 2", 0.0, 1 / 2),
    text("a statement raises at the end", "assert f(1) == 1\n1 / 0", 0.0, 1.0),
    text("statements between", "x = f(1)\nassert x == 1\nx = f(2)\nassert x == 2"),
    text("in a loop", "for a in range(3):\n    assert f(a) == a"),
    text("in a loop, wrong", "for a in range(3):\n    assert f(a) == 1", 0.0),
    text("in a function", "def test():\n    assert f(1) == 1\ntest()"),
    text("in a function that nobody calls", "def test():\n    assert f(1) == 1", 0.0),
    text("with a message", "assert f(1) == 1, 'no'"),
    text("ends by SystemExit", "assert f(1) == 1\nraise SystemExit(0)", 0.0, 1.0),
    text(
        "annotations of the future",
        "from __future__ import annotations\ndef g(x: None.none):\n    return x\nassert f(g(1)) == 1",
    ),
    text("is main", "assert __name__ == '__main__' and f(1) == 1"),
    text(
        "a class of its own", "class A:\n    x = f(3)\n    def g(self):\n        return f(self.x)\nassert A().g() == 3"
    ),
    text(
        "unittest",
        "import unittest\nclass T(unittest.TestCase):\n    def runTest(self):\n        self.assertEqual(f(1), 1)\n"
        "        assert True\nassert unittest.TextTestRunner().run(T()).wasSuccessful()",
    ),
    text("swallows its own assert", "try:\n    assert f(1) == 2\nexcept AssertionError:\n    pass"),
    Row("a list", F, ["assert f(1) == 1", "assert f(1, 1) == 2"], 1.0),
    Row("a list, one wrong", F, ["assert f(1) == 1", "assert f(1) == 2", "assert f(2) == 2"], 0.0, 2 / 3),
    Row("a list, one raises", F, ["1 / 0\nassert f(1) == 1", "assert f(2) == 2"], 0.0, 1 / 2),
    Row("a list, one exits", F, ["raise SystemExit\nassert f(1) == 1", "assert f(2) == 2"], 0.0, 1 / 2),
    Row("a text of a list is one unit", F, ["assert f(1) == 1\nassert f(1) == 2", "assert f(2) == 2"], 0.0, 1 / 2),
    Row(
        "texts of a list share no names",
        F,
        ["x = 1\nassert f(x) == 1", "x = globals().get('x')\nassert x is None"],
        1.0,
    ),
    # check
    text("check", CHECK, entry="f"),
    text("check is one unit", CHECK + "    assert candidate(2, 2) == 5\nassert f(1) == 1", 0.0, 1 / 2, entry="f"),
    text("check, called", CHECK + "check(f)", entry="f"),
    text("check, called with candidate", CHECK + "check(candidate)", entry="f"),
    text("check, called without entry_point", CHECK + "check(f)"),
    text("check, called twice", CHECK + "check(f)\ncheck(box)", 0.0, 1 / 2),
    text("check, called in a loop", CHECK + "for g in [f]:\n    check(g)"),
    text("check, called in a function", CHECK + "def main():\n    check(1)", entry="f"),
    text("check without an assert", "def check(candidate):\n    candidate(1)", 0.0, entry="f"),
    text("the text has an f of its own", CHECK + "def f(a, b):\n    return 7", entry="f"),
    text("an assert beside a check without", "def check(c):\n    c(1)\nassert f(1) == 1", entry="f"),
    text("check is the program's", "assert check(1) == 1", 0.0, entry="check"),
    # names
    text("every free name", "assert LIMIT == 5 and f(LIMIT) == 5 and Box is Box"),
    text("names are read each time", "assert count == 0\nbump()\nassert count == 1"),
    text("an import is the judge's", "import math\nassert math.floor(f(1)) == 1"),
    text("a star import is the judge's", "from math import *\nassert floor(f(1.5)) == 1", entry="f"),
    text("a definition is the judge's", "def size(x):\n    return 9\nassert size(box()) == 9"),
    text("builtins are the judge's", "assert sum([f(1), 2]) == 3"),
    Row(
        "a patched builtin",
        "import builtins\nbuiltins.len = lambda x: 3\ndef len(x):\n    return 3",
        "assert len([1]) == 3",
        0.0,
    ),
    Row(
        "entry_point over a builtin",
        "def max(a):\n    return 7",
        "assert max([1]) == 7 and candidate([1]) == 7",
        1.0,
        None,
        "max",
    ),
    text("a missing name", "assert missing(1) == 1", 0.0),
    text("a missing entry_point", "assert g(1) == 1", 0.0, entry="g"),
    text("a missing name is a NameError", "try:\n    missing\nexcept NameError as e:\n    assert 'missing' in str(e)"),
    # values
    text(
        "values cross both ways",
        """
for value in (None, True, 0, 10 ** 5000, 1.5, float('inf'), 'a\\ud800\\0é', b'\\0\\xff', [1, [2]], (1, (2,)), {1, 2},
              frozenset({(1, 2)}), {1: [2], (3,): None}, 1 + 2j, range(5, 1, -2), {'a': {'b': [()]}}):
    assert same(value) == value and type(same(value)) is type(value)
""",
    ),
    text("NaN", "assert same(float('nan')) != same(float('nan'))"),
    text("bool is a bool", "assert same(True) is True and same(1) is not True"),
    text("signs of zero", "import math\nassert math.copysign(1, same(-0.0)) == -1"),
    text("an iterator", "x = same(iter([1, 2]))\nassert next(x) == 1 and list(x) == [2]"),
    text("a generator as an argument", "assert list(same(i * i for i in range(3))) == [0, 1, 4]"),
    text("a view", "assert sorted(same({1: 2, 3: 4}.items())) == [(1, 2), (3, 4)]"),
    text(
        "a generator that raises",
        "x = few()\nassert next(x) == 1\ntry:\n    next(x)\nexcept KeyError as e:\n    assert e.args == ('k',)",
    ),
    text("a generator without end", "assert next(ones()) == 1", 0.0),
    text("a list in itself stays there", "a = same([])\nassert same(a) == []"),
    text("arguments are copies", "x = [1]\nsame(x).append(2)\nassert x == [1]"),
    text("a callback does not cross", "try:\n    same(lambda: 1)\nexcept TypeError:\n    assert True"),
    text("9 MiB do not cross", "try:\n    same('a' * (9 << 20))\nexcept TypeError:\n    assert True"),
    text("7 MiB do", "assert len(same('a' * (7 << 20))) == 7 << 20"),
    # handles
    text("methods and attributes", "b = Box([1])\nb.put(2).put(item=3, times=2)\nassert b.items == [1, 2, 3, 3]"),
    text("handed back", "assert size(box(1, 2)) == 2 and size(same(Box())) == 0 and len([Box(), box()]) == 2"),
    text("inside of a list", "x, y = same([box(1), 5])\nassert y == 5 and x.items == [1]"),
    text("is itself", "b = box()\nassert same(b) is b and box() is not b and f is f"),
    text("class attributes", "Box(); Box()\nassert Box.made == 2"),
    text(
        "attributes that are missing", "b = box()\nassert not hasattr(b, 'nothing') and getattr(b, 'nothing', 3) == 3"
    ),
    text("is no value", "assert not isinstance(box(), (int, str, list)) and callable(box)"),
    *(
        text(
            f"refuses {expression}",
            f"b, c = box(1), box(1)\ntry:\n    {expression}\nexcept TypeError:\n    assert True",
        )
        for expression in (
            "b == c",
            "b != c",
            "b < c",
            "b == 1",
            "1 == b",
            "[b] == [c]",
            "bool(b)",
            "not b",
            "hash(b)",
            "{b}",
            "iter(b)",
            "len(b)",
            "1 in b",
            "b in [1]",
            "b + 1",
            "1 + b",
            "-b",
            "b[0]",
            "b._hidden",
            "b.__dict__",
            "b.__class__()",
            "setattr(b, 'x', 1)",
            "delattr(b, 'items')",
            "str(b)",
            "repr(b)",
            "f'{b}'",
            "int(b)",
            "b.__eq__(c)",
            "sorted([b, c])",
            "isinstance(1, Box)",
            "vars(b)",
        )
    ),
    # exceptions
    text(
        "the nearest built-in class",
        "try:\n    fails(Wrong)\nexcept ValueError as e:\n    assert str(e) == 'why' and type(e) is ValueError",
    ),
    text("its text", "try:\n    fails(Full)\nexcept Exception as e:\n    assert str(e) == 'full!'"),
    text(
        "KeyError",
        "try:\n    fails('KeyError')\nexcept KeyError as e:\n    assert str(e) == \"'why'\" and e.args == ('why',)",
    ),
    *(
        text(
            f"{kind} is a RuntimeError",
            f"try:\n    fails({kind!r})\nexcept RuntimeError as e:\n    assert str(e) == 'why'",
        )
        for kind in (
            "AssertionError",
            "StopIteration",
            "StopAsyncIteration",
            "GeneratorExit",
            "SystemExit",
            "KeyboardInterrupt",
        )
    ),
    text("other than expected", "try:\n    fails('KeyError')\nexcept ValueError:\n    assert True", 0.0),
    text("none where one is expected", "try:\n    f(1)\nexcept ValueError:\n    assert True", 0.0),
    text(
        "many of them",
        "for kind in (ValueError, OSError, UnicodeError, ZeroDivisionError, RecursionError, ImportError):\n"
        "    try:\n        fails(kind.__name__)\n    except kind as e:\n        assert 'why' in str(e)",
    ),
    Row("exits when loaded", F + "raise SystemExit(0)", "assert True", 0.0),
    Row("a syntax error", "def f(:", "assert True", 0.0),
)

texts = Graded(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_texts(row: Row) -> None:
    assert texts.of(False)[row.name] == row.value


def test_shares() -> None:
    several = Graded(tuple(row for row in ROWS if row.share is not None or row.name in ("asserts", "a list", "check")))
    assert several.of(True) == {row.name: row.of_share for row in several.rows}
