"""The numbers of metrics.jsonl by column, read once and in blocks, so that a chart of a million steps is quick."""

from __future__ import annotations

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy
import pyarrow
from numpy.typing import NDArray
from pyarrow import json as arrow_json

from oneloop.lab.folders import Folder
from oneloop.lab.lines import block, mark_at, parsed

Column = NDArray[numpy.floating]
BLOCK = 4 * 2**20
EXACT = 2.0**24
"""Above it float32 has no longer every whole number, and a column is kept as float64."""
CHARTS = 64
"""Answers that are remembered; many pages ask for the same chart."""


class Columns:
    """A table of numbers that grows. Columns that a row has not hold NaN there."""

    def __init__(self) -> None:
        self.rows = 0
        self._held: dict[str, Column] = {}  # longer than what was written, so that few appends copy
        self._written: dict[str, int] = {}

    def append(self, columns: Mapping[str, Column], rows: int) -> None:
        for name, values in columns.items():
            held = self._room(name, self.rows + rows, wide=name == "time" or _wide(values))
            held[self._written[name] : self.rows] = numpy.nan
            held[self.rows : self.rows + rows] = values
            self._written[name] = self.rows + rows
        self.rows += rows

    def names(self) -> list[str]:
        return list(self._held)

    def get(self, name: str) -> Column | None:
        """One column, a value for each row; None where no row has it."""
        if name not in self._held:
            return None
        held = self._room(name, self.rows, wide=False)
        held[self._written[name] : self.rows] = numpy.nan
        self._written[name] = self.rows
        return held[: self.rows]

    def _room(self, name: str, rows: int, *, wide: bool) -> Column:
        """The column with space for so many rows. Pages that are not written to yet take no memory."""
        held = self._held.get(name, _NONE)
        kind = numpy.float64 if wide else held.dtype
        if len(held) < rows or held.dtype != kind:
            larger = _empty(max(rows, 2 * len(held), 1024) if len(held) < rows else len(held), kind)
            written = self._written.setdefault(name, 0)
            larger[:written] = held[:written]
            self._held[name] = larger
        return self._held[name]


_NONE: Column = numpy.empty(0, numpy.float32)


def _empty(size: int, kind: Any) -> Column:
    """An array that goes back to the system as soon as it is dropped; of the heap, holes would stay."""
    return numpy.frombuffer(mmap.mmap(-1, size * numpy.dtype(kind).itemsize), kind)


def _wide(values: Column) -> bool:
    return bool(len(values)) and bool(numpy.nanmax(numpy.abs(values), initial=0.0) > EXACT)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Rows as columns. What is no finite number is NaN."""
    found: dict[str, Column] = {}
    for place, row in enumerate(rows):
        for name, value in row.items():
            if name not in found:
                found[name] = numpy.full(len(rows), numpy.nan)
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[name][place] = value if _fits(value) else numpy.nan
    return found


def _fits(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


class Index:
    """metrics.jsonl of one run. A thread of its own reads it in blocks; whoever asks gets what there is so far."""

    def __init__(self, folder: Folder, name: str = "metrics.jsonl") -> None:
        self._folder, self._name = folder, name
        self._lock = threading.Lock()
        self._busy: threading.Thread | None = None
        self._start_over()

    def _start_over(self) -> None:
        self.columns, self.offset, self.total = Columns(), 0, 0
        self._inode, self._mark = 0, ""
        self._charts: OrderedDict[Any, Any] = OrderedDict()

    @property
    def ready(self) -> float:
        """Share of the file that has been read."""
        return min(self.offset / self.total, 1.0) if self.total else 1.0

    def refresh(self, wait: float) -> None:
        """Read on; comes back when all is read or `wait` seconds are over. Raises: OSError where there is no file."""
        with self._lock:
            if self._busy is None or not self._busy.is_alive():
                if not self._changed():
                    return
                self._busy = threading.Thread(target=self._read_on, name="lab-index", daemon=True)
                self._busy.start()
            busy = self._busy
        busy.join(wait)

    def chart(self, key: Any, made: Callable[[Columns], Any]) -> Any:
        """What `made` says of the columns, remembered until there are more rows."""
        with self._lock:
            key = (key, self.columns.rows)
            if key not in self._charts:
                self._charts[key] = made(self.columns)
                while len(self._charts) > CHARTS:
                    self._charts.popitem(last=False)
            return self._charts[key]

    def _changed(self) -> bool:
        """Look at the file: whether there is something to read. Starts over where it is not the one that was read."""
        with self._folder.open(self._name) as file:
            inode = _inode(file)
            self.total = file.seek(0, 2)
            same = inode == self._inode and self.offset <= self.total and mark_at(file, self.offset) == self._mark
        if not same:
            total = self.total
            self._start_over()
            self.total, self._inode = total, inode
        return self.offset < self.total

    def _read_on(self) -> None:
        try:
            with self._folder.open(self._name) as file:
                while _inode(file) == self._inode and (content := block(file, self.offset, BLOCK)):
                    columns, rows = _parsed_block(content, self.columns.names())
                    end = self.offset + len(content)
                    mark = mark_at(file, end)
                    with self._lock:
                        self.columns.append(columns, rows)
                        self.offset, self._mark = end, mark
                        self.total = max(self.total, end)
                self.total = max(self.offset, 0) or self.total
        except OSError:
            pass  # whoever asks next hears that the file is gone


def _inode(file: Any) -> int:
    return os.fstat(file.fileno()).st_ino


def _parsed_block(content: bytes, known: Sequence[str]) -> tuple[dict[str, Column], int]:
    """Whole lines as columns. pyarrow reads them without Python's lock; a line that is no JSON object is left out."""
    found = _by_arrow(content, known)
    if found is not None:
        return found
    rows = [row for line in content.split(b"\n") if (row := parsed(line)) is not None]
    return columns_of(rows), len(rows)


def _by_arrow(content: bytes, known: Sequence[str]) -> tuple[dict[str, Column], int] | None:
    schema = pyarrow.schema([(name, pyarrow.float64()) for name in known])
    try:
        table = arrow_json.read_json(
            pyarrow.BufferReader(content),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
        )
        columns = {}
        for name in dict.fromkeys(table.column_names):
            values = table.column(name)
            kind = values.type
            if pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_null(kind):
                column = values.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
                columns[name] = numpy.where(numpy.isfinite(column), column, numpy.nan)
    except (pyarrow.ArrowException, ValueError):
        return None
    return columns, table.num_rows
