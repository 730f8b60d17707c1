"""Values of any column: rewards read them and the run folder keeps them, so each has to be plain text or numbers."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

from oneloop.data.kinds import BadRow, Row, short

DEEPEST = 100
"""Lists and objects inside one another."""
_AS_TEXT = (date, datetime, time, timedelta, Decimal)


def checked(row: Row) -> Row:
    """The row with dates and decimals as text and arrays as lists; the same object where nothing has to change.

    Raises: BadRow naming the column, for a NUL, half of a surrogate pair, NaN, infinity, bytes and other objects.
    """
    changed: Row = {}
    for name, value in row.items():
        if type(name) is not str:
            raise BadRow(f"the name of a column is {short(name)}; wanted text")
        _check_text("the name of a column", name)
        plain = _plain(name, value, 0)
        if plain is not value:
            changed[name] = plain
    return {**row, **changed} if changed else row


def _plain(what: str, value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        _check_text(what, value)
    elif kind is float:
        if not isfinite(value):
            raise BadRow(f"{what} is {value}, which is not a number. Fix: write it as text, or null")
    elif kind is list or kind is tuple:
        return _list(what, value, depth + 1)
    elif kind is dict:
        return _dict(what, value, depth + 1)
    elif value is not None and kind is not int and kind is not bool:
        return _converted(what, value, depth)
    return value


def _list(what: str, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    _check_depth(what, depth)
    items = [_plain(f"{what}[{place}]", item, depth) for place, item in enumerate(value)]
    same = type(value) is list and all(new is old for new, old in zip(items, value, strict=True))
    return value if same else items  # pyright: ignore[reportReturnType]


def _dict(what: str, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
    _check_depth(what, depth)
    for name in value:
        if type(name) is not str:
            raise BadRow(f"{what}: the name of a column is {short(name)}; wanted text")
        _check_text(f"{what}: the name of a column", name)
    items = {name: _plain(f"{what}: {name}", item, depth) for name, item in value.items()}
    return value if all(items[name] is value[name] for name in value) else items


def _converted(what: str, value: Any, depth: int) -> Any:
    if isinstance(value, _AS_TEXT):
        return value.isoformat() if hasattr(value, "isoformat") else str(value)  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, (str, int, float)):  # subclasses, such as an enumeration's members
        return value
    if hasattr(value, "tolist") and not hasattr(value, "requires_grad"):  # numpy's numbers and arrays
        return _plain(what, value.tolist(), depth)
    raise BadRow(
        f"{what} is {short(value)} of type {type(value).__name__}; wanted text, numbers, or lists and objects of them"
    )


def _check_depth(what: str, depth: int) -> None:
    if depth > DEEPEST:
        raise BadRow(f"{what[:40]}… is nested too deep: more than {DEEPEST} lists or objects inside one another")


def _check_text(what: str, text: str) -> None:
    if "\x00" in text:
        raise BadRow(f"{what} contains a NUL character: {short(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRow(f"{what} contains half of a surrogate pair, which is no text: {short(text)}") from None
