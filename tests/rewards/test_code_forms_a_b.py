"""What runs of a script and calls of a function pay: the contract's sentences, each a row."""

import pytest

from code_rows import Graded, Row

TWO = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 -5\n", "output": "0"}]
ADD = [{"args": [1, 2], "expected": 3}, {"args": [2, 2], "expected": 4}]


def prints(text: str, wanted: str, name: str, value: float) -> Row:
    return Row(name, f"import sys\nsys.stdout.write({text!r})", [{"input": "", "output": wanted}], value)


def returns(expression: str, wanted: object, value: float, name: str = "") -> Row:
    return Row(
        f"returns {name or expression} for {wanted!r}"[:80],
        f"import collections, enum\nclass Any:\n    __eq__ = lambda a, b: True\ndef f():\n    return {expression}",
        [{"args": [], "expected": wanted}],
        value,
        entry_point="f",
    )


SCRIPTS = (
    Row("adds", "a, b = map(int, input().split())\nprint(a + b)", TWO, 1.0),
    Row("says 3", "print(3)", TWO, 0.0, share=0.5),
    Row("a fence", "Well:\n```python\na, b = map(int, input().split())\nprint(a + b)\n```\nDone.", TWO, 1.0),
    Row("JSON text", "print(3)", '[{"input": "", "output": "3"}]', 1.0),
    Row("exit", "print(3)\nexit()", [{"input": "", "output": "3"}], 1.0),
    Row("quit with 1", "print(3)\nquit(1)", [{"input": "", "output": "3"}], 0.0),
    Row("a status beyond 64 bits", "import sys\nprint(3)\nsys.exit(1 << 64)", [{"input": "", "output": "3"}], 0.0),
    Row(
        "output of its own, written at the end by its module's names",
        "import io, os, sys\nclass Fast(io.StringIO):\n    def flush(self):\n"
        "        os.write(1, self.getvalue().encode())\n"
        "        self.truncate(0)\nsys.stdout = Fast()\nprint(3)",
        [{"input": "", "output": "3"}],
        1.0,
    ),
    Row(
        "what stdout was before",
        "import atexit, io, sys\nsys.stdout = kept = io.StringIO()\n"
        "atexit.register(lambda: sys.__stdout__.write(kept.getvalue()))\n"
        "print(3)",
        [{"input": "", "output": "3"}],
        1.0,
    ),
    Row("stdout closed", "import sys\nprint(3, flush=True)\nsys.stdout.close()", [{"input": "", "output": "3"}], 1.0),
    Row("no stderr", "import sys\nprint(3)\nsys.stderr = None", [{"input": "", "output": "3"}], 1.0),
    Row(
        "last words of an object",
        "TEXT = '3'\nclass Last:\n    def __del__(self):\n        print(TEXT)\nlast = Last()",
        [{"input": "", "output": "3"}],
        1.0,
    ),
    Row("a number of megabytes", "print('1' * 4_000_000 + 'x')", [{"input": "", "output": "0.5"}], 0.0),
    Row("millions of words", "print('1 ' * 1_000_000)", [{"input": "", "output": "0.5"}], 0.0),
    prints("5.0", "1e400", "infinity is no decimal number", 0.0),
    Row(
        "what the module of a script holds",
        "import os\nprint(__builtins__.len('abc'), os.path.dirname(__file__) == os.getcwd())",
        [{"input": "", "output": "3 True"}],
        1.0,
    ),
    Row(
        "the locale of the environment",
        "import locale\nlocale.setlocale(locale.LC_ALL, '')\nprint(f'{1234567:n}', sorted('bAa', key=locale.strxfrm))",
        [{"input": "", "output": "1234567 ['A', 'a', 'b']"}],
        1.0,
    ),
    Row(
        "examples in its own text",
        "def double(n):\n    '>>> double(3)\\n6'\n    return 2 * n\nimport doctest\nprint(*doctest.testmod())",
        [{"input": "", "output": "0 1"}],
        1.0,
    ),
    Row("is main", "if __name__ == '__main__':\n    print(3)", [{"input": "", "output": "3"}], 1.0),
    Row(
        "stdin is a descriptor",
        "import os, sys\nprint(os.read(0, 2).decode() + os.fdopen(sys.stdin.fileno(), closefd=False).read())",
        [{"input": "ab\ncd", "output": "ab\ncd"}],
        1.0,
    ),
    Row("seeks", "import sys\nprint(len(sys.stdin.buffer.read()))", [{"input": "é" * 70_000, "output": "140000"}], 1.0),
    Row("one argument", "import sys\nprint(len(sys.argv))", [{"input": "", "output": "1"}], 1.0),
    Row(
        "a new folder for each",
        "import os\nprint(len(os.listdir()))\nopen('left', 'w').close()",
        [{"input": "", "output": "0"}, {"input": "", "output": "0"}],
        1.0,
    ),
    *(
        Row(f"ends by {end}", f"import os, sys\nprint(3, flush=True)\n{end}", [{"input": "", "output": "3"}], value)
        for end, value in (
            ("sys.exit()", 1.0),
            ("sys.exit(0)", 1.0),
            ("os._exit(0)", 1.0),
            ("raise SystemExit", 1.0),
            ("sys.exit(1)", 0.0),
            ("sys.exit('0')", 0.0),
            ("os._exit(3)", 0.0),
            ("1 / 0", 0.0),
            ("os.abort()", 0.0),
            ("raise KeyboardInterrupt", 0.0),
        )
    ),
    Row("prints at its end", "import atexit\natexit.register(print, 3)", [{"input": "", "output": "3"}], 1.0),
    Row(
        "a thread prints",
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print(3))).start()",
        [{"input": "", "output": "3"}],
        1.0,
    ),
    Row("stderr is no output", "import sys\nprint(3, file=sys.stderr)", [{"input": "", "output": "3"}], 0.0),
    Row("a prompt is output", "input('n: ')\nprint(3)", [{"input": "1", "output": "3"}], 0.0),
    Row("a syntax error", "print(", TWO, 0.0),
    Row("nothing at all", "", TWO, 0.0),
    Row("a NUL", "print(3)\0", TWO, 0.0),
    Row("a surrogate", "print(3) # \ud800", [{"input": "", "output": "3"}], 0.0),
    Row("9 MiB of program", "#" * (9 << 20) + "\nprint(3)", [{"input": "", "output": "3"}], 0.0),
    Row("no UTF-8", "import sys\nsys.stdout.buffer.write(b'3\\xff')", [{"input": "", "output": "3"}], 0.0),
    prints("3  \r\n\n \n", "3", "ends of lines and blank lines", 1.0),
    prints("\n3", "3", "a blank line before", 0.0),
    prints(" 3", "3", "a space before", 0.0),
    prints("a\n\nb", "a\nb", "a blank line between", 0.0),
    prints("0.3333333", "0.33333333", "a decimal near", 1.0),
    prints("0.3334", "0.3333", "a decimal not near", 0.0),
    prints("x 1e-7 7", "x 0.0 7", "a word beside a decimal", 1.0),
    prints("x 0.0 7.0", "x 0.0 7", "an int beside a decimal", 0.0),
    prints("7.0", "7", "a decimal for an int", 0.0),
    prints("7", "7.0", "an int for a decimal", 1.0),
    prints("nan", "1.0", "NaN for a number", 0.0),
    prints("inf", "1e5", "an infinity for a number", 0.0),
    prints("é😀", "é😀", "beyond ASCII", 1.0),
)

CALLS = (
    Row(  # to say this error, Python 3.11 reads far beyond its text
        "an error about a place that is not in its text",
        "class E(UnicodeDecodeError):\n    __str__ = lambda self: 'x'\ndef f():\n    yield 1\n"
        "    raise E('utf8', b'', -10**12, -10**12 + 1, 'r')",
        [{"args": [], "expected": [1]}],
        0.0,
        entry_point="f",
    ),
    Row("adds", "def f(a, b):\n    return a + b", ADD, 1.0, entry_point="f"),
    Row("says 3", "def f(a, b):\n    return 3", ADD, 0.0, share=0.5, entry_point="f"),
    Row("says it late", "def f(a, b):\n    return 4", ADD, 0.0, share=0.5, entry_point="f"),
    Row(
        "by name",
        "def f(a, b=0, *, c):\n    return [a, b, c]",
        [{"args": [1], "kwargs": {"c": 3}, "expected": [1, 0, 3]}, {"kwargs": {"a": 1, "c": 2}, "expected": [1, 0, 2]}],
        1.0,
        entry_point="f",
    ),
    Row(
        "tables give every key",
        "def f(a=5):\n    return a",
        [{"args": None, "kwargs": None, "expected": 5, "input": None, "output": None}],
        1.0,
        entry_point="f",
    ),
    Row("JSON text", "def f(a):\n    return a[::-1]", '[{"args": [[1, 2]], "expected": [2, 1]}]', 1.0, entry_point="f"),
    Row(
        "is not main",
        "def f():\n    return __name__ == '__main__'",
        [{"args": [], "expected": False}],
        1.0,
        entry_point="f",
    ),
    Row(
        "its state lives",
        "n = 0\ndef f():\n    global n\n    n += 1\n    return n",
        [{"args": [], "expected": 1}, {"args": [], "expected": 2}],
        1.0,
        entry_point="f",
    ),
    Row(
        "arguments are copies",
        "def f(a):\n    a.append(1)\n    return len(a)",
        [{"args": [[0]], "expected": 2}, {"args": [[0]], "expected": 2}],
        1.0,
        entry_point="f",
    ),
    Row(
        "prints are thrown away",
        "print('x')\ndef f():\n    print(1)\n    return 1",
        [{"args": [], "expected": 1}],
        1.0,
        entry_point="f",
    ),
    Row(
        "stdin is empty",
        "def f():\n    import sys\n    return sys.stdin.read()",
        [{"args": [], "expected": ""}],
        1.0,
        entry_point="f",
    ),
    Row(
        "raises and goes on",
        "def f(a):\n    return 1 // a",
        [{"args": [0], "expected": 0}, {"args": [1], "expected": 1}],
        0.0,
        share=0.5,
        entry_point="f",
    ),
    Row(
        "exits and goes on",
        "def f(a):\n    return a or exit_()\ndef exit_():\n    raise SystemExit(0)",
        [{"args": [0], "expected": 0}, {"args": [1], "expected": 1}],
        0.0,
        share=0.5,
        entry_point="f",
    ),
    Row("no such function", "def g():\n    return 1", [{"args": [], "expected": 1}], 0.0, entry_point="f"),
    Row("a class is called", "class f:\n    pass", [{"args": [], "expected": None}], 0.0, entry_point="f"),
    Row("exits when loaded", "raise SystemExit(0)", ADD, 0.0, entry_point="f"),
    Row(
        "a dataclass",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f():\n    return P(3).x",
        [{"args": [], "expected": 3}],
        1.0,
        entry_point="f",
    ),
    Row(
        "deep recursion",
        "import sys\nsys.setrecursionlimit(20000)\ndef f(n):\n    return n and 1 + f(n - 1)",
        [{"args": [10_000], "expected": 10_000}],
        1.0,
        entry_point="f",
    ),
    Row(
        "a huge int",
        "def f(n):\n    return 10 ** n",
        [{"args": [99_999], "expected": 10**99_999}],
        1.0,
        entry_point="f",
    ),
    Row(
        "a large list",
        "def f(n):\n    return list(range(n))",
        [{"args": [10**5], "expected": list(range(10**5))}],
        1.0,
        entry_point="f",
    ),
    # bool, None
    returns("True", True, 1.0),
    returns("1", True, 0.0),
    returns("True", 1, 0.0),
    returns("0", False, 0.0),
    returns("None", None, 1.0),
    returns("False", None, 0.0),
    returns("0", None, 0.0),
    # numbers
    returns("2.0", 2, 1.0),
    returns("2", 2.0, 1.0),
    returns("2.0000001", 2, 0.0),
    returns("2.0000001", 2.0, 1.0),
    returns("2.1", 2.0, 0.0),
    returns("float('nan')", float("nan"), 1.0),
    returns("float('inf')", float("inf"), 1.0),
    returns("-float('inf')", float("inf"), 0.0),
    returns("float('nan')", 1.0, 0.0),
    returns("float('inf')", 1.0, 0.0),
    returns("10 ** 400", 1e308, 0.0),
    returns("10 ** 400", 10**400, 1.0),
    returns("10 ** 400", float("inf"), 0.0),
    returns("1e16", 10**16 + 1, 0.0),
    returns("1000000.5", 1e6, 1.0),
    returns("2 + 0j", 2, 0.0),
    # text and containers
    returns("'a'", "a", 1.0),
    returns("'a '", "a", 0.0),
    returns("b'a'", "a", 0.0),
    returns("'1'", 1, 0.0),
    returns("'\\ud800'", "\ud800", 1.0),
    returns("'\\ud83d\\ude00'", "\U0001f600", 0.0),
    returns("(1, [2])", [1, [2]], 1.0),
    returns("[1, 2]", [1], 0.0),
    returns("[]", [], 1.0),
    returns("[]", {}, 0.0),
    returns("'ab'", ["a", "b"], 0.0),
    returns("{1, 2}", [1, 2], 0.0),
    returns("range(2)", [0, 1], 0.0),
    returns("iter([1])", [1], 0.0),
    returns("{}.keys()", [], 0.0),
    returns("frozenset()", [], 0.0),
    returns("{'a': 1}", {"a": 1}, 1.0),
    returns("{'a': 1, 'b': 1}", {"a": 1}, 0.0),
    returns("{}", {"a": 1}, 0.0),
    returns("{1: 'x'}", {"1": "x"}, 1.0),
    returns("{1: 'x'}", {1: "x"}, 1.0),
    returns("{'1': 'x'}", {1: "x"}, 1.0),
    returns("{1: 'x', '1': 'x'}", {"1": "x"}, 0.0),
    returns("{True: 1}", {"1": 1}, 0.0),
    returns("{True: 1}", {"True": 1}, 0.0),
    returns("{1.0: 1}", {"1": 1}, 0.0),
    returns("{None: 1}", {"None": 1}, 0.0),
    returns("{(1,): 1}", {"(1,)": 1}, 0.0),
    # a subclass is the value of its base
    returns("enum.IntEnum('E', 'A').A", 1, 1.0),
    returns("collections.Counter('aab')", {"a": 2, "b": 1}, 1.0),
    returns("collections.namedtuple('P', 'x y')(1, 2)", [1, 2], 1.0),
    returns("collections.defaultdict(list)", {}, 1.0),
    returns("collections.OrderedDict(a=1)", {"a": 1}, 1.0),
    returns("enum.Enum('E', 'A').A", 1, 0.0),
    returns("collections.deque([1])", [1], 0.0),
    returns("bytearray(b'a')", "a", 0.0),
    returns("f", None, 0.0),
    returns("Any()", None, 0.0),
    returns("[Any()]", [1], 0.0),
    returns("(lambda a: a.append(a) or a)([])", [], 0.0, "a list in itself"),
)

scripts, calls = Graded(SCRIPTS), Graded(CALLS)


@pytest.mark.parametrize("row", SCRIPTS, ids=lambda row: row.name)
def test_runs_of_a_script(row: Row) -> None:
    assert scripts.of(False)[row.name] == row.value


@pytest.mark.parametrize("row", CALLS, ids=lambda row: row.name)
def test_calls_of_a_function(row: Row) -> None:
    assert calls.of(False)[row.name] == row.value


@pytest.mark.parametrize("graded", [scripts, calls], ids=["scripts", "calls"])
def test_shares(graded: Graded) -> None:
    several = Graded(tuple(row for row in graded.rows if len(row.tests) > 1 and not isinstance(row.tests, str)))
    assert several.of(True) == {row.name: row.of_share for row in several.rows}
