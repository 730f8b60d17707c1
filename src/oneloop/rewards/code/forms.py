"""The three forms of tests, read from a row of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

from oneloop.rewards.code.compare import Other, spelling
from oneloop.rewards.code.inside import wire

_SCRIPT = frozenset(("input", "output"))
_CALL = frozenset(("args", "kwargs", "expected"))
_PIECE = 4000
"""Digits that int() reads at once, whatever its limit is."""


class NotGradable(Exception):
    """Why a row has no value, whatever the program is."""


@dataclass(frozen=True)
class Scripts:
    """Runs of the program."""

    tests: tuple[tuple[bytes, str], ...]
    """Its stdin, and what it is to print."""


@dataclass(frozen=True)
class Calls:
    """Calls of one function."""

    entry_point: str
    tests: tuple[tuple[bytes, Any], ...]
    """The arguments as they are sent, and the value that is right."""


@dataclass(frozen=True)
class Texts:
    """Python with asserts."""

    texts: tuple[str, ...]
    alone: bool
    """It was one text, of which every assert counts by itself."""
    entry_point: str | None


Tests = Scripts | Calls | Texts


def tests_of(tests: Any, entry_point: Any = None) -> Tests:
    """Raises: NotGradable."""
    name = entry_point if isinstance(entry_point, str) and entry_point else None
    if isinstance(tests, str):
        found = _from_json(tests)
        return _structured(found, name) if found else _texts((tests,), True, name)
    if tests is None or (isinstance(tests, (list, tuple)) and not tests):
        raise NotGradable("there are no tests")
    if isinstance(tests, (list, tuple)):
        if all(isinstance(test, str) for test in tests):
            return _texts(tuple(tests), False, name)
        if all(isinstance(test, Mapping) for test in tests):
            return _structured(tests, name)
    raise NotGradable(f"tests is a {type(tests).__name__}; wanted a list of dicts, a text, or a list of texts")


def _checked(name: str | None) -> str | None:
    if name is not None and (not name.isidentifier() or iskeyword(name)):
        raise NotGradable(f"entry_point is {name!r}; wanted the name of a function")
    return name


def _from_json(text: str) -> list[Any] | None:
    """The list of dicts that it spells."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text, parse_int=_int)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, dict) for each in found) else None


def _int(digits: str) -> int:
    sign, digits = (-1, digits[1:]) if digits[0] == "-" else (1, digits)
    if len(digits) > wire.DIGITS:
        raise ValueError(f"an int of over {wire.DIGITS} digits")
    number = 0
    for start in range(0, len(digits), _PIECE):
        piece = digits[start : start + _PIECE]
        number = number * 10 ** len(piece) + int(piece)
    return sign * number


def _texts(texts: tuple[str, ...], alone: bool, name: str | None) -> Texts:
    if not all(text.strip() for text in texts):
        raise NotGradable("a text of the tests is empty")
    try:
        wire.packed(list(map(wire.written, texts)))
    except wire.Unfit as error:
        raise NotGradable(f"the tests cannot be handed over: {error}") from None
    return Texts(texts, alone, _checked(name))


def _structured(tests: Sequence[Mapping[str, Any]], name: str | None) -> Scripts | Calls:
    """A key without a value is as if it were not there, but `expected`: tables give every row every key."""
    keys = [{key for key, value in test.items() if value is not None} for test in tests]
    if all(held >= _SCRIPT and not held & _CALL for held in keys):
        return Scripts(tuple(map(_script, tests)))
    if not all("expected" in test and not held & _SCRIPT for test, held in zip(tests, keys, strict=True)):
        raise NotGradable("not every test has input and output, nor has every one args and expected")
    name = _checked(name)
    if name is None:
        raise NotGradable("tests that are calls need the column entry_point, the name of the function")
    return Calls(name, tuple(map(_call, tests)))


def _script(test: Mapping[str, Any]) -> tuple[bytes, str]:
    given, wanted = test["input"], test["output"]
    if not isinstance(given, str) or not isinstance(wanted, str):
        raise NotGradable("input and output of a test are not both text")
    try:
        return given.encode(), wanted
    except UnicodeEncodeError:
        raise NotGradable("the input of a test holds a surrogate, which is no text") from None


def _call(test: Mapping[str, Any]) -> tuple[bytes, Any]:
    args, kwargs, wanted = test.get("args"), test.get("kwargs"), test["expected"]
    args, kwargs = [] if args is None else args, {} if kwargs is None else kwargs
    if (
        not isinstance(args, (list, tuple))
        or not isinstance(kwargs, dict)
        or not all(type(key) is str for key in kwargs)
    ):
        raise NotGradable("args of a test is no list, or kwargs no dict of names")
    _check_wanted(wanted, 1)
    try:
        return wire.packed(
            [list(map(wire.written, args)), [[key, wire.written(kwargs[key])] for key in kwargs]]
        ), wanted
    except wire.Unfit as error:
        raise NotGradable(f"the arguments of a test cannot be handed over: {error}") from None


def _check_wanted(wanted: Any, depth: int) -> None:
    """That some value can be equal to it."""
    if wanted is None or isinstance(wanted, (bool, int, float, str)):
        return
    if not isinstance(wanted, (list, tuple, dict)) or depth > wire.DEPTH:
        raise NotGradable(f"expected of a test holds a {type(wanted).__name__}, which no value of a call is equal to")
    if isinstance(wanted, dict):
        keys = [spelling(key) for key in wanted]
        if any(isinstance(key, Other) for key in keys) or len(set(keys)) < len(keys):
            raise NotGradable("expected of a test is a dict with keys that are no text, or twice the same")
    for item in wanted.values() if isinstance(wanted, dict) else wanted:
        _check_wanted(item, depth + 1)
