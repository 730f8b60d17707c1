"""One program against the tests of one row."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from secrets import token_hex
from time import monotonic
from typing import Any

from oneloop.rewards.code.compare import built, most_brackets, most_bytes, other, same_output, same_value
from oneloop.rewards.code.forms import Calls, NotGradable, Scripts, Tests, Texts
from oneloop.rewards.code.inside import wire
from oneloop.rewards.code.talk import Gone, Talk
from oneloop.sandbox.limits import Limits
from oneloop.sandbox.process import Confined, start

_INSIDE = "oneloop.rewards.code.inside"
_ROW = 4
"""Times the CPU seconds of a process that a row may take which goes on after a failed test."""
_HEAD = 100
"""Bytes of an answer that holds no value."""
_WALL = 2
"""Times the CPU seconds of a process that it may last."""


Results = Generator[bool, None, None]
"""Of tests one after the other; closed, they leave nothing."""


@dataclass(frozen=True)
class Outcome:
    """Of a row."""

    passed: int
    tests: int
    clean: bool
    """Nothing failed, nor what is no test by itself."""


def outcome(program: str, tests: Tests, limits: Limits, share: bool) -> Outcome:
    """
    Args:
        share: go on after a failed test.

    Raises: NotGradable; SandboxError where the machine fails; ConfigError where it isolates nothing.
    """
    try:
        source = wire.packed(wire.written(program))
    except wire.Unfit:  # no process could be given it
        return Outcome(0, 1, clean=False)
    if isinstance(tests, Texts):
        return _texts(source, tests, limits, share)
    results = _scripts(source, tests, limits, share) if isinstance(tests, Scripts) else _calls(source, tests, limits)
    passed = 0
    with closing(results):
        for result in results:
            passed += result
            if not result and not share:
                break
    return Outcome(passed, len(tests.tests), passed == len(tests.tests))


# runs of a script


def _scripts(source: bytes, tests: Scripts, limits: Limits, share: bool) -> Results:
    left = _ROW * limits.seconds if share else float("inf")
    for given, wanted in tests.tests:
        if left <= 0:
            return
        deadline = monotonic() + _WALL * limits.seconds
        with start(f"{_INSIDE}.script", replace(limits, seconds=min(limits.seconds, left)), stdin=given) as run:
            try:
                Talk(run, deadline).send(b"P", source)
            except Gone:
                run.kill()
            end = run.wait(deadline)
            yield end.status == 0 and end.limit_hit is None and same_output(run.stdout(), wanted)
        left -= end.cpu_seconds


# calls of a function


def _calls(source: bytes, tests: Calls, limits: Limits) -> Results:
    with start(f"{_INSIDE}.module", limits) as run:
        talk = Talk(run, monotonic() + _WALL * limits.seconds)
        try:
            request = _load(talk, source)
            if not _answer(talk, request, _HEAD)[0]:
                return
            for number, (arguments, wanted) in enumerate(tests.tests, start=1):
                right = _is_right(talk, tests.entry_point, arguments, wanted)
                yield right and (number < len(tests.tests) or _within(run))
        except Gone:
            _within(run)


def _is_right(talk: Talk, entry_point: str, arguments: bytes, wanted: Any) -> bool:
    request = token_hex(8)
    head = f'["{request}","call",{json.dumps(entry_point, ensure_ascii=False)},'
    talk.send(b"C", head.encode() + arguments[1:])
    returned, tree = _answer(talk, request, most_bytes(wanted), 1 + most_brackets(wanted))
    return returned and same_value(_value(tree), wanted)


def _value(tree: Any) -> Any:
    try:
        return wire.read(tree, other, built)
    except wire.Unreadable:
        raise Gone from None


# a text with asserts


def _texts(source: bytes, tests: Texts, limits: Limits, share: bool) -> Outcome:
    with start(f"{_INSIDE}.judge", limits) as judge, start(f"{_INSIDE}.module", limits) as run:
        deadline = monotonic() + _WALL * limits.seconds
        bench, stand = Talk(judge, deadline), Talk(run, deadline)
        units = _units(judge, bench, tests, share)
        passed, clean = 0, False
        try:
            request = _load(stand, source)
            if _answer(stand, request, _HEAD)[0]:
                bench.send(b"G", b"")
                for kind, told in _relayed(bench, stand):
                    passed += kind == b"U" and told
                    clean = kind == b"D" and told
        except Gone:
            clean = False
        if not (_within(judge) and _within(run)):
            passed, clean = min(passed, units - 1), False
    return Outcome(passed, units, clean and passed == units)


def _units(judge: Confined, bench: Talk, tests: Texts, share: bool) -> int:
    """How many units the tests have, once they are read."""
    try:
        bench.send(b"T", wire.packed([list(map(wire.written, tests.texts)), tests.alone, tests.entry_point, share]))
        kind, body = bench.receive()
        told = bench.read(body)
    except Gone:
        _within(judge)
        raise NotGradable("the tests could not be read within the limits") from None
    if kind == b"N":
        raise NotGradable(told)
    return told


def _relayed(bench: Talk, stand: Talk) -> Iterator[tuple[bytes, bool]]:
    """Carry calls and answers between the two, and give what the judge says itself, of a unit or at its end.

    Raises: Gone, and then nothing can be caught any more by the text of the tests.
    """
    while True:
        kind, body = bench.receive()
        if kind == b"C":
            stand.send(b"C", body)
            bench.send(*stand.receive())
        elif kind in (b"U", b"D") and stand.quiet():
            yield kind, body == b"true"
            if kind == b"D":
                return
        else:
            raise Gone


# all


def _load(talk: Talk, source: bytes) -> str:
    """Send the program. Returns: the name of the request."""
    request = token_hex(8)
    talk.send(b"P", f'["{request}","load",'.encode() + source + b"]")
    return request


def _answer(talk: Talk, request: str, most: int, brackets: int = _HEAD) -> tuple[bool, Any]:
    """Whether it returned what may be right, and what.

    Args:
        most: bytes of a right answer. A longer one is not taken apart, which would cost this process time and memory.
        brackets: `[` of a right answer; with more of them it is not taken apart either.

    Raises: Gone also for an answer to what was not asked.
    """
    kind, body = talk.receive()
    if kind != b"A" or not talk.quiet():
        raise Gone
    if len(body) > most or body.count(b"[") > brackets:
        return False, None
    message = talk.read(body)
    if not isinstance(message, list) or len(message) != 3:
        raise Gone
    name, returned, tree = message
    if name != request or type(returned) is not bool:
        raise Gone
    return returned, tree


def _within(run: Confined) -> bool:
    """End it. Returns: whether it has kept its limits; of the wall-clock time the deadline has told.

    Raises: SandboxError where the machine ended it.
    """
    return run.wait(0.0).limit_hit in (None, "wall")
