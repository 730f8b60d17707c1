"""What an attack is, and the rows of tests that it is graded by.

A *breakout* tries to do what no program may. It defines `escaped()`, and around it stands a program that is right only
where that is True: so the reward itself says whether it got through, beside what `world.py` sees from outside.
A *fake* is a program that does not compute the answer and wants to be paid for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAIRS = ((171, 2046), (-39, 800), (5000, 77))
"""What the right program adds; no sum stands anywhere in an attack."""
ENTRY_POINT = "f"
FORMS: dict[str, Any] = {
    "streams": [{"input": f"{a} {b}\n", "output": f"{a + b}\n"} for a, b in PAIRS],
    "calls": [{"args": [a, b], "expected": a + b} for a, b in PAIRS],
    "asserts": [f"assert f({a}, {b}) == {a + b}" for a, b in PAIRS],
    "check": "def check(candidate):\n" + "".join(f"    assert candidate({a}, {b}) == {a + b}\n" for a, b in PAIRS),
}
"""The same tests in each form: (a), (b), and (c) as a list and as one text."""
_MAIN = """
if __name__ == "__main__":
    print(f(*map(int, input().split())))
"""
_AROUND = """
def f(a, b):
    return a + b if escaped() is True else None
"""


@dataclass(frozen=True)
class Attack:
    """A program, where what is outside is named @LIKE_THIS@.

    Args:
        tests: of its own, where those of `FORMS` do not show it.
        after: a program that is graded just before it, and may leave something behind.
        open_in: the tiers that do not hold it, which docs/code-rewards.md names.
    """

    name: str
    program: str
    tests: Any = None
    entry_point: str | None = ENTRY_POINT
    after: str = ""
    open_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Honest:
    """A right program, with tests in one form."""

    name: str
    program: str
    tests: Any
    entry_point: str | None = None


def breakout(name: str, body: str, **settings: Any) -> Attack:
    return Attack(name, body.strip("\n") + "\n" + _AROUND + _MAIN, **settings)


def fake(name: str, program: str, after: str = "", **settings: Any) -> Attack:
    after = f"{after.strip()}\n{_MAIN}" if after else ""
    return Attack(name, program.strip("\n") + "\n" + _MAIN, after=after, **settings)


def kernel_call(name: str, x86: int, arm: int, arguments: str = "") -> Attack:
    """A system call by its number on x86_64 and aarch64, with arguments that do no harm. It got through where it is not
    refused: an error about its arguments is the kernel's own, which nobody inside may reach.
    """
    refused = "ctypes.get_errno() in (1, 13, 38)"
    body = f"def escaped():\n    return call({x86}, {arm}, {arguments}) >= 0 or not {refused}\n"
    return breakout(name, f"{CALLING}\n{body}")


CALLING = """
import ctypes, os
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
zeros = ctypes.create_string_buffer(4096)
def call(x86, arm, *arguments):
    number = x86 if os.uname().machine == "x86_64" else arm
    if number < 0:
        ctypes.set_errno(38)
        return -1
    plain = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _libc.syscall(ctypes.c_long(number), *plain)
"""
"""Put before what calls the kernel by hand."""


def rows(attack: Attack, forms: Sequence[str]) -> list[tuple[str, Any, str | None]]:
    """Program, tests and entry point for each form."""
    if attack.tests is not None:
        return [(attack.program, attack.tests, attack.entry_point)]
    return [(attack.program, FORMS[form], ENTRY_POINT) for form in forms]


def calls(name: str, program: str, entry_point: str, *cases: tuple[list[Any], Any]) -> Honest:
    """Form (b): arguments and what is expected."""
    return Honest(
        name, program.lstrip("\n"), [{"args": args, "expected": wanted} for args, wanted in cases], entry_point
    )


def streams(name: str, program: str, *cases: tuple[str, str]) -> Honest:
    """Form (a): what is read and what is to be printed."""
    return Honest(name, program.lstrip("\n"), [{"input": given, "output": wanted} for given, wanted in cases])


def asserts(name: str, program: str, *texts: str) -> Honest:
    """Form (c), a list of texts that name what the program defines."""
    return Honest(name, program.lstrip("\n"), list(texts))
