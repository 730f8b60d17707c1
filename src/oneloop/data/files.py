"""Text files of rows: JSON lines, JSON arrays and CSV, read where they lie, one row when it is asked for.

Only where each row begins and ends is kept in memory. A value is exactly what the file says: a table of typed columns
would turn "2024-01-01" into a date and 2 beside 2.5 into 2.0, and would give every object the keys of all the others.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import IO
from weakref import finalize

from oneloop.data.kinds import BadRow, Row, short
from oneloop.data.values import DEEPEST, checked
from oneloop.errors import DataError

BOM = b"\xef\xbb\xbf"


@dataclass
class Spans:
    """Where rows stand in a file: first byte, the byte after the last, and the number of the line or the item."""

    starts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))

    def add(self, start: int, end: int, number: int) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.numbers.append(number)


class FileTable:
    """Implements `Table` over an open file.

    Args:
        name: the file as the user named it.
        parse: the bytes of one row to its columns.
        place: how a number is written after the name, such as ":{}".
    """

    def __init__(self, name: str, file: IO[bytes], spans: Spans, parse: Callable[[bytes], Row], place: str) -> None:
        self._name, self._spans, self._parse, self._place = name, spans, parse, place
        # rows are asked for as long as a run lasts; whoever opened the file may close it
        self._file = os.dup(file.fileno())
        self._changed = os.fstat(self._file).st_mtime_ns
        finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._spans.starts)

    def row(self, place: int) -> Row:
        if os.fstat(self._file).st_mtime_ns != self._changed:
            raise DataError(f"{self._name} was changed while it is read. Fix: start again; let a run's data be")
        return self._read(place)

    def every(self) -> Iterator[Row | BadRow]:
        for place in range(len(self)):
            try:
                yield self._read(place)
            except BadRow as bad:
                yield bad

    def where(self, place: int) -> str:
        return self._name + self._place.format(self._spans.numbers[place])

    def _read(self, place: int) -> Row:
        start, end = self._spans.starts[place], self._spans.ends[place]
        return self._parse(os.pread(self._file, end - start, start))


def lines_table(name: str, file: IO[bytes]) -> FileTable:
    """A JSON object a line. Only newlines end a row: U+2028 may stand inside a text."""
    spans, place = Spans(), 0
    for number, line in enumerate(file, start=1):
        start, end = place, place + len(line)
        place = end
        if number == 1 and line.startswith(BOM):
            start, line = start + len(BOM), line[len(BOM) :]
        if line and not line.isspace():
            spans.add(start, end, number)
    return FileTable(name, file, spans, parse_object, ":{}")


def array_table(name: str, file: IO[bytes]) -> FileTable:
    """One JSON array of objects, found item by item.

    Raises: DataError where the array breaks off or is followed by something.
    """
    text = _Window(name, file)
    spans, number = Spans(), 0
    text.skip("[")
    while text.peek() != "]":
        if number:
            text.skip(",")
        spans.add(*text.item(number), number)
        number += 1
    text.skip("]")
    if text.peek():
        raise DataError(f"{name}: something stands after the array. Fix: one array, or one object a line as .jsonl")
    return FileTable(name, file, spans, parse_object, "[{}]")


class _Window:
    """The part of a file that is being looked at. A byte is a character here (latin-1): JSON's own are ASCII."""

    def __init__(self, name: str, file: IO[bytes], size: int = 1 << 20) -> None:
        self._name, self._file, self._size = name, file, size
        self._text, self._at, self._base, self._ended = "", 0, 0, False
        self._more()
        if self._text.startswith(BOM.decode("latin-1")):
            self._at = len(BOM)

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def skip(self, wanted: str) -> None:
        if (found := self.peek()) != wanted:
            what = f"{found!r}" if found else "the end of the file: it is cut off"
            place = self._base + self._at
            raise DataError(f"{self._name}: not a JSON array: wanted {wanted!r} at byte {place}, found {what}")
        self._at += 1

    def item(self, number: int) -> tuple[int, int]:
        """Where the next value begins and ends."""
        self.peek()
        while True:
            try:
                _, stop = _STRUCTURE.raw_decode(self._text, self._at)
                # a number could go on after the window
                if stop < len(self._text) or self._ended:
                    break
            except ValueError as error:
                if self._ended:
                    shown = short(self._text[self._at : self._at + 80])
                    raise DataError(f"{self._name}[{number}]: not JSON ({error}): {shown}") from None
            except RecursionError:
                raise DataError(f"{self._name}[{number}]: nested too deep") from None
            self._more()
        start, self._at = self._at, stop
        return self._base + start, self._base + stop

    def _more(self) -> None:
        """Let go of what was seen, and read on; a value longer than the window doubles it."""
        self._size = max(self._size, len(self._text) - self._at)
        read = self._file.read(self._size)
        self._base += self._at
        self._text, self._at, self._ended = self._text[self._at :] + read.decode("latin-1"), 0, not read


def csv_table(name: str, file: IO[bytes]) -> FileTable:
    """Columns named by the first line; every value is text, as the file has no types.

    Raises: DataError for a header without names, or with one of them twice.
    """
    csv.field_size_limit(sys.maxsize)
    spans, place, number = Spans(), 0, 0

    def lines() -> Iterator[str]:
        nonlocal place, number
        for line in file:
            place, number = place + len(line), number + 1
            yield (line.removeprefix(BOM) if number == 1 else line).decode("utf-8", errors="replace")

    reader = csv.reader(lines())
    header = next(reader, [])
    if not all(title.strip() for title in header) or len(set(header)) < len(header):
        raise DataError(f"{name}:1: the names of the columns are {header}; wanted a name for each, no two the same")
    start, first = place, number + 1
    for record in reader:
        if record:
            spans.add(start, place, first)
        start, first = place, number + 1

    def parse(raw: bytes) -> Row:
        try:
            values = next(csv.reader(io.StringIO(_decoded(raw), newline=""), strict=True), [])
        except csv.Error as error:
            raise BadRow(f"not CSV ({error}): {short(raw[:80])}") from None
        if len(values) != len(header):
            raise BadRow(f"{len(values)} values for the {len(header)} columns {header}: {short(values)}")
        return checked(dict(zip(header, values, strict=True)))

    return FileTable(name, file, spans, parse, ":{}")


def parse_object(raw: bytes) -> Row:
    """One row of JSON."""
    text = _decoded(raw)
    try:
        row = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadRow(f"not JSON ({error.msg} at column {error.colno}): {short(text.strip())}{_guess(text)}") from None
    except RecursionError:
        raise BadRow(f"nested too deep: {short(text)}") from None
    except ValueError as error:  # numbers: NaN, 1e999, thousands of digits
        raise BadRow(f"{error}. Fix: write it as text, or null: {short(text)}") from None
    if type(row) is not dict:
        raise BadRow(f"a {type(row).__name__}, wanted an object with a name for each value: {short(row)}")
    # without these bytes there is no NUL, no surrogate and no great depth in it
    if b"\\u0000" in raw or b"\\ud" in raw or b"\\uD" in raw or raw.count(b"[") + raw.count(b"{") > DEEPEST:
        return checked(row)
    return row


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        wrong = error.object[error.start : error.start + 4]
        raise BadRow(f"{wrong!r} is not UTF-8 text. Fix: save the file as UTF-8") from None


def _guess(text: str) -> str:
    """What a file that is no JSON may be."""
    if text.lstrip().lower().startswith(("<!doctype", "<html", "<?xml")):
        return ". It is a web page. Fix: download the file itself, not the page that shows it"
    return ""


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits} is too large for a number")
    return number


_SPACE = re.compile(r"[ \t\r\n]*")
_STRUCTURE = json.JSONDecoder(strict=False)
_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
