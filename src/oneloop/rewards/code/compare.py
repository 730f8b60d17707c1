"""What is equal: the output of a program, and the value of a call. Nothing here runs a method of the program's."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

TOLERANCE = 1e-6
"""Of a decimal number, relative to it where it is over 1."""
_NUMBER = re.compile(r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?")
"""Each character is looked at once: a word may be megabytes long."""
_SPELLED = re.compile(r"0|-?[1-9][0-9]*")
_LONGEST_KEY = 4000
"""Digits of an int that can be equal to its spelling."""
_NODE = 400
"""Bytes of any number that is near to a float, and of what stands around a value."""


def same_output(output: bytes, wanted: str) -> bool:
    """By lines. Whitespace at line ends and blank lines at the end do not count; decimal numbers have a tolerance."""
    try:
        text = output.decode().rstrip()
    except UnicodeDecodeError:
        return False
    right = wanted.rstrip().split("\n")
    if text.count("\n") != len(right) - 1:  # before millions of lines are told apart
        return False
    return all(_same_line(line.rstrip(), each.rstrip()) for line, each in zip(text.split("\n"), right, strict=True))


def _same_line(line: str, wanted: str) -> bool:
    if line == wanted:
        return True
    right = wanted.split()
    words = line.split(None, len(right))  # one more than wanted is enough to see that there are too many
    return len(words) == len(right) and any(map(_is_decimal, right)) and all(map(_same_word, words, right))


def _is_decimal(word: str) -> bool:
    return _NUMBER.fullmatch(word) is not None and not word.lstrip("+-").isdigit()


def _same_word(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    return _is_decimal(wanted) and _NUMBER.fullmatch(word) is not None and _close(float(word), float(wanted))


def _close(number: float, wanted: float) -> bool:
    return math.isfinite(number) and math.isfinite(wanted) and abs(number - wanted) <= TOLERANCE * max(1.0, abs(wanted))


@dataclass(frozen=True)
class Pairs:
    """A dict as it came: whoever sent it could choose keys of one hash."""

    items: tuple[tuple[Any, Any], ...]


class Other:
    """What equals nothing: a set, or a handle."""


def built(tag: str, items: list[Any]) -> Pairs | Other:
    """For `wire.read`."""
    return Pairs(tuple(zip(items[::2], items[1::2], strict=True))) if tag == "d" else Other()


def other(number: Any) -> Other:
    """For `wire.read`."""
    return Other()


def same_value(value: Any, wanted: Any) -> bool:
    """Whether a call's value, read with `built`, is the one of the data, by type and value."""
    if wanted is None or isinstance(wanted, bool):
        return value is wanted
    if isinstance(wanted, (int, float)):
        return type(value) in (int, float) and _same_number(value, wanted)
    if isinstance(wanted, str):
        return type(value) is str and value == wanted
    if isinstance(wanted, dict):
        return type(value) is Pairs and _same_dict(value, wanted)
    return type(value) in (list, tuple) and len(value) == len(wanted) and all(map(same_value, value, wanted))


def most_bytes(wanted: Any) -> int:
    """As many as a value that is equal to it takes at most: what is longer need not be read to be wrong."""
    if isinstance(wanted, str):
        return _NODE + 6 * len(wanted)
    if isinstance(wanted, int):
        return _NODE + wanted.bit_length() // 4
    if isinstance(wanted, dict):
        return _NODE + sum(most_bytes(str(key)) + most_bytes(item) for key, item in wanted.items())
    return _NODE + (sum(map(most_bytes, wanted)) if isinstance(wanted, (list, tuple)) else 0)


def most_brackets(wanted: Any) -> int:
    """As many `[` as a value that is equal to it takes at most: millions of empty lists are short, and slow to read."""
    if isinstance(wanted, str):
        return 1 + wanted.count("[")
    if isinstance(wanted, dict):
        return 1 + sum(most_brackets(str(key)) + most_brackets(item) for key, item in wanted.items())
    return 1 + (sum(map(most_brackets, wanted)) if isinstance(wanted, (list, tuple)) else 0)


def _same_number(value: float, wanted: float) -> bool:
    if isinstance(wanted, int) or math.isinf(wanted):
        return value == wanted
    if math.isnan(wanted):
        return value != value
    try:
        return _close(float(value), wanted)
    except OverflowError:  # an int that no float is near to
        return False


def _same_dict(value: Pairs, wanted: dict[Any, Any]) -> bool:
    if len(value.items) != len(wanted):
        return False
    items = {spelling(key): item for key, item in value.items}
    right = {spelling(key): item for key, item in wanted.items()}
    return items.keys() == right.keys() and all(same_value(items[key], right[key]) for key in right)


def spelling(key: Any) -> Any:
    """A str as which it is compared; itself or nothing that equals any other where it has none."""
    if type(key) is int and abs(key) < 10**_LONGEST_KEY:
        return str(key)
    return key if type(key) is str else Other()
