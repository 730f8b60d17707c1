"""Rows as they stand in their source, each with a name for its place. None of them holds a data set in memory."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from hashlib import sha256
from itertools import accumulate, islice
from typing import Any, Protocol, runtime_checkable

from oneloop.data.kinds import BadRow, Row, short
from oneloop.data.values import checked

BATCH = 1000
"""Rows that are turned from columns into Python values at a time."""
REMAPPED = 100 * BATCH
"""Rows after which a memory-mapped file is mapped anew."""


@runtime_checkable
class Table(Protocol):
    """Rows of one source."""

    def __len__(self) -> int: ...

    def row(self, place: int) -> Row:
        """Raises: BadRow for what is no row."""
        ...

    def every(self) -> Iterator[Row | BadRow]:
        """All rows in order; what is no row as the reason why."""
        ...

    def where(self, place: int) -> str:
        """The place of a row as a person finds it: file:line, file row N, data[17]."""
        ...


class ListTable:
    """Rows that a Python program or a built-in task holds."""

    def __init__(self, rows: Sequence[Any], name: str) -> None:
        self._rows, self._name = rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, place: int) -> Row:
        row = self._rows[place]
        if not isinstance(row, dict):
            raise BadRow(f"a {type(row).__name__} ({short(row)}), wanted a dict with a value for each column")
        return checked(row)

    def every(self) -> Iterator[Row | BadRow]:
        return _each(self.row, len(self))

    def where(self, place: int) -> str:
        return f"{self._name}[{place}]"


class ArrowTable:
    """A `datasets.Dataset`: memory-mapped columns.

    Args:
        place_of: names the place of a row.
    """

    def __init__(self, dataset: Any, place_of: Callable[[int], str]) -> None:
        self._dataset, self._place_of = dataset, place_of

    def __len__(self) -> int:
        return len(self._dataset)

    def row(self, place: int) -> Row:
        return checked(self._dataset[place])

    def every(self) -> Iterator[Row | BadRow]:
        dataset = self._dataset
        for start in range(0, len(self), BATCH):
            if start % REMAPPED == 0 and dataset.cache_files:
                # pages that were read stay in memory as long as their mapping
                dataset = _mapped_anew(self._dataset)
            columns: dict[str, list[Any]] = dataset[start : start + BATCH]
            names = list(columns)
            for values in zip(*columns.values(), strict=True):
                yield _tried(checked, dict(zip(names, values, strict=True)))

    def where(self, place: int) -> str:
        return self._place_of(place)


class JoinedTable:
    """Several tables, one after the other."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self._ends = list(accumulate(len(table) for table in tables))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, place: int) -> Row:
        table, inside = self._found(place)
        return table.row(inside)

    def every(self) -> Iterator[Row | BadRow]:
        for table in self._tables:
            yield from table.every()

    def where(self, place: int) -> str:
        table, inside = self._found(place)
        return table.where(inside)

    def _found(self, place: int) -> tuple[Table, int]:
        number = bisect_right(self._ends, place)
        return self._tables[number], place - (self._ends[number - 1] if number else 0)


def content(table: Table) -> str:
    """SHA-256 of a table's rows as one JSON array."""
    return digest(str(row) if isinstance(row, BadRow) else row for row in table.every())


def digest(values: Iterable[Any]) -> str:
    """SHA-256 of values as one JSON array, which is never in memory as a whole."""
    found, items, before = sha256(b"["), iter(values), b""
    while batch := list(islice(items, BATCH)):
        found.update(before + ", ".join(map(_ENCODER.encode, batch)).encode())
        before = b", "
    found.update(b"]")
    return found.hexdigest()


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=True)


def _mapped_anew(dataset: Any) -> Any:
    """A copy of a `datasets.Dataset` that maps its files by itself."""
    made = copy(dataset)
    made._data = _table_anew(dataset._data)
    if dataset._indices is not None:
        made._indices = _table_anew(dataset._indices)
    return made


def _table_anew(table: Any) -> Any:
    """A copy of a mapped table opens its file again; of a table of tables, each has to be copied."""
    if not hasattr(table, "blocks"):
        return copy(table)
    made = object.__new__(type(table))
    made.__setstate__({**table.__getstate__(), "blocks": [[copy(block) for block in row] for row in table.blocks]})
    return made


def _each(read: Callable[[int], Row], count: int) -> Iterator[Row | BadRow]:
    for place in range(count):
        yield _tried(read, place)


def _tried(read: Callable[[Any], Row], what: Any) -> Row | BadRow:
    try:
        return read(what)
    except BadRow as bad:
        return bad
