"""Programs that do not compute the sum and want to be paid for it: what they say, how they end, what they look for."""

import pytest

from code_rows import Graded, Row

CALLS = [{"args": [1, 2], "expected": 3}, {"args": [20, 22], "expected": 42}]
TEXT = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(20, 22) == 42\n"
CAUGHT = """
def check(candidate):
    for a, b in ((1, 2), (20, 22)):
        try:
            wrong = candidate(a, b) != a + b
        except BaseException:
            wrong = False
        assert not wrong
    assert True
"""
"""A text that takes an exception for right: what ends the process must still not pass."""
SCRIPT = [{"input": "1 2", "output": "3"}, {"input": "20 22", "output": "42"}]

LIES = {
    "an int that equals all": "class E(int):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
    "    __hash__ = int.__hash__\ndef f(a, b):\n    return E(0)",
    "a float that equals all": "class E(float):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
    "    __hash__ = float.__hash__\n    __sub__ = __rsub__ = lambda s, o: 0.0\ndef f(a, b):\n    return E(0)",
    "an object that equals all": "class E:\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
    "def f(a, b):\n    return E()",
    "a class that equals all": "class M(type):\n    __eq__ = lambda s, o: True\n    __hash__ = None\n"
    "class E(metaclass=M):\n    pass\ndef f(a, b):\n    return E",
    "lies about its class": "class E:\n    @property\n    def __class__(self):\n        return int\n"
    "    __eq__ = lambda s, o: True\n    __index__ = __int__ = lambda s: 3\ndef f(a, b):\n    return E()",
    "an int that spells itself otherwise": "class E(int):\n    __repr__ = __str__ = __format__ = lambda *a: '3'\n"
    "    __add__ = __index__ = __int__ = __pos__ = lambda *a: 3\ndef f(a, b):\n    return E(0)",
    "text": "def f(a, b):\n    return str(a + b)",
    "a list": "def f(a, b):\n    return [a + b]",
    "NaN": "def f(a, b):\n    return float('nan')",
    "True": "def f(a, b):\n    return True",
    "a huge int": "def f(a, b):\n    return 10 ** 200_000",
    "a list in itself": "def f(a, b):\n    x = []\n    x.append(x)\n    return x",
    "a generator without end": "def f(a, b):\n    while True:\n        yield 3",
    "not to be written": "class E(dict):\n    def items(self):\n        raise MemoryError\n    __len__ = lambda s: 1\n"
    "def f(a, b):\n    return E()",
    "NotImplemented": "def f(a, b):\n    return NotImplemented",
    "itself": "def f(a, b):\n    return f",
    "an AssertionError": "def f(a, b):\n    raise AssertionError",
    "a StopIteration": "def f(a, b):\n    raise StopIteration(a + b)",
}
ENDS = {
    "_exit when loaded": "import os\nos._exit(0)",
    "exit when loaded": "import sys\nsys.exit(0)",
    "_exit in f": "import os\ndef f(a, b):\n    os._exit(0)",
    "_exit at exit": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "_exit in a thread": "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\n"
    "def f(a, b):\n    import time; time.sleep(9)",
    "excepthook": "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\nraise ValueError",
    "killed": "import ctypes\ndef f(a, b):\n    ctypes.string_at(0)",
    "closes its channel": "import os\ndef f(a, b):\n    os.closerange(3, 256)\n    return 0",
    "closes its channel when loaded": "import os\nos.closerange(3, 256)\ndef f(a, b):\n    return 0",
    "prints success": "print('OK\\n1 passed\\n' + '{\"passed\": true}')\ndef f(a, b):\n    print(a + b, True)",
}
CHANNEL = """
import json, os
def frame(kind, what, size=None):
    body = what if isinstance(what, bytes) else json.dumps(what).encode()
    return (len(body) if size is None else size).to_bytes(4, "big") + kind + body
def say(data):
    while data:
        data = data[os.write(3, data):]
"""
FRAMES = {
    "says that all passed": "for kind in (b'U', b'U', b'D'):\n    say(frame(kind, True))\ndef f(a, b):\n    return 0",
    "says it in a call": "def f(a, b):\n    say(frame(b'U', True) + frame(b'D', True))\n    return 0",
    "no JSON": "def f(a, b):\n    say(frame(b'A', b'}{'))\n    return 0",
    "an answer to nothing": "def f(a, b):\n    say(frame(b'A', ['0' * 16, True, a + b]))\n    return 0",
    "answers ahead": "for _ in range(8):\n    say(frame(b'A', ['', True, 3]))\ndef f(a, b):\n    return 0",
    "an object of JSON": "def f(a, b):\n    say(frame(b'A', {'passed': True}))\n    return 0",
    "4 GiB are to come": "def f(a, b):\n    say(frame(b'A', b'', 2 ** 32 - 1))\n    return 0",
    "half a frame": "def f(a, b):\n    say(frame(b'A', b'[', 9))\n    os._exit(0)",
    "brackets": "def f(a, b):\n    say(frame(b'A', b'[' * 10 ** 6))\n    return 0",
    "digits": "def f(a, b):\n    say(frame(b'A', b'1' * 10 ** 6))\n    return 0",
}
MEMORY = """
import ctypes, gc
def found(*wanted):
    objects = gc.get_objects()
    for page in {id(each) >> 12 for each in (*objects, *gc.get_referents(*objects))}:
        data = ctypes.string_at(page << 12, 4096)
        for begin, rest in wanted:  # never put together: it would find itself
            at = data.find(begin)
            while at >= 0:
                if data.startswith(rest, at + len(begin)):
                    return True
                at = data.find(begin, at + 1)
    return False
"""
SEARCHES = {
    "walks frames": """
import sys
def f(a, b):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(each, dict) and 'expected' in each:
                    return each['expected']
        frame = frame.f_back
    return 0
""",
    "walks objects": """
import gc
def f(a, b):
    for each in gc.get_objects():
        if type(each) is dict and 'expected' in each:
            return each['expected']
    return 0
""",
    "looks for the text": """
import gc
def f(a, b):
    wanted = ''.join(['candidate(20, ', '22)'])
    for each in gc.get_objects():
        if type(each) in (list, tuple, dict) and wanted in repr(each):
            return a + b
    return 0
""",
    "looks at its arguments": """
import os, sys
def f(a, b):
    seen = repr(sys.argv) + repr(dict(os.environ)) + repr(os.listdir())
    return a + b if 'candidate' in seen or 'expected' in seen else 0
""",
    "looks at its memory": MEMORY
    + """
def f(a, b):
    return a + b if found([b'candidate(20, ', b'22)'], [b'expec', b'ted', b'": 42']) else 0
""",
    "empties lists": """
import gc
for each in gc.get_objects():
    if type(each) is list and each and isinstance(each[0], dict):
        each.clear()
def f(a, b):
    return 0
""",
    "patches builtins": """
import builtins
builtins.all = builtins.any = lambda *a: True
builtins.AssertionError = Warning
builtins.abs = lambda a: 0
def f(a, b):
    return 0
""",
    "patches unittest": """
import operator, unittest
unittest.TestCase.run = lambda *a: True
operator.eq = lambda *a: True
def f(a, b):
    return 0
""",
    "files in its folder": """
for name in ('conftest.py', 'json.py', 'sitecustomize.py', 'x.pth'):
    open(name, 'w').write('import os\\nos._exit(0)\\n')
def f(a, b):
    return 0
""",
    "reads ahead": """
import socket
def f(a, b):
    channel = socket.socket(fileno=3)
    channel.setblocking(False)
    try:
        return a + b if channel.recv(9) else 0
    except BlockingIOError:
        return 0
    finally:
        channel.setblocking(True)
        channel.detach()
""",
}


def rows() -> tuple[Row, ...]:
    found = list[Row]()
    for name, source in (LIES | ENDS | SEARCHES).items():
        found += (
            Row(f"{name}, calls", source, CALLS, 0.0, entry_point="f"),
            Row(f"{name}, text", source, TEXT, 0.0, entry_point="f"),
        )
        if name not in LIES:
            script = source + "\ntry:\n    print(f(*map(int, input().split())))\nexcept NameError:\n    pass"
            found.append(Row(f"{name}, script", script, SCRIPT, 0.0))
    for name, source in FRAMES.items():
        found += (
            Row(f"{name}, calls", CHANNEL + source, CALLS, 0.0, entry_point="f"),
            Row(f"{name}, text", CHANNEL + source, TEXT, 0.0, entry_point="f"),
        )
    for name in ENDS | FRAMES:
        if name not in ("prints success", "excepthook"):
            source = CHANNEL + FRAMES[name] if name in FRAMES else ENDS[name]
            found.append(Row(f"{name}, all is caught", source, CAUGHT, 0.0, entry_point="f"))
    # the last things it does: forge the only answer and be silent; answer, and be gone when the value is looked at
    forged = CHANNEL + "def f(a, b):\n    say(frame(b'A', ['0' * 16, True, 3]))\n    __import__('time').sleep(60)"
    gone = "import os, threading\ndef f(a, b):\n    threading.Timer(0.1, os._exit, (0,)).start()\n    return 3"
    later = "x = f(1, 2)\n__import__('time').sleep(0.5)\nassert x == 3"
    return (
        *found,
        Row("the only answer is forged, calls", forged, CALLS[:1], 0.0, entry_point="f"),
        Row("the only answer is forged, text", forged, "assert f(1, 2) == 3", 0.0),
        Row("is gone when it is looked at", gone, later, 0.0),
    )


ROWS = rows()
HONEST = tuple(
    Row(f"the sum itself, {form}", "def f(a, b):\n    return a + b", tests, 1.0, entry_point="f")
    for form, tests in (("calls", CALLS), ("text", TEXT), ("all is caught", CAUGHT))
)
cheats, honest = Graded(ROWS), Graded(HONEST)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_cheat_earns_nothing(row: Row) -> None:
    assert cheats.of(False)[row.name] == 0.0


def test_a_cheat_earns_no_share() -> None:
    some = Graded(tuple(row for row in ROWS if row.name.split(",")[0] in {**ENDS, **FRAMES, "NaN": ""}))
    assert set(some.of(True).values()) == {0.0}


def test_the_sum_is_paid() -> None:
    assert set(honest.of(False).values()) == {1.0}


def test_the_search_of_memory_finds_what_is_there() -> None:
    """Else the cheat that looks for the tests would find nothing whatever there is."""
    program = MEMORY + "def f(a, b):\n    return found([b'nee', b'dle']), found([b'hay', b'stack'])\nkept = b'-needle-'"
    tests = [{"args": [1, 2], "expected": [True, False]}]
    assert Graded((Row("finds", program, tests, 1.0, entry_point="f"),)).of(False) == {"finds": 1.0}
