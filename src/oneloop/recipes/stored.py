"""Items that wait on disk until they are asked for: memory does not grow with a data set."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from io import BytesIO
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import IO, Any, Generic, TypeVar, overload
from weakref import finalize

from oneloop.data.packed import scratch
from oneloop.errors import DataError

Item = TypeVar("Item")
IN_MEMORY = 64 << 20
"""Bytes up to which items need no file."""


class Stored(Sequence[Item], Generic[Item]):
    """Items in the order in which they were added, each as it was then.

    Eight bytes of memory an item, and where they are more than `IN_MEMORY` a nameless file, which ends with the object.
    They lie there as JSON: reading them runs nothing.

    Args:
        write, read: an item as a value of JSON, and the item again.
    """

    def __init__(self, write: Callable[[Item], Any], read: Callable[[Any], Item]) -> None:
        self._write, self._read = write, read
        self._file: IO[bytes] = BytesIO()
        self._ends = array("q", [0])

    def add(self, item: Item) -> None:
        """Raises: DataError for what cannot be written down, and where there is no room."""
        try:
            written = json.dumps(self._write(item), separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"a value cannot be kept on disk ({error}). Fix: plain text or numbers, or lists and objects of them"
            ) from error
        end = self._ends[-1] + len(written)
        try:
            if isinstance(self._file, BytesIO) and end > IN_MEMORY:
                self._move()
            self._file.seek(self._ends[-1])
            self._file.write(written)
        except OSError as error:
            raise DataError(
                f"{scratch()}: {error.strerror} at {end / 1e6:,.0f} MB: tokenised rows lie there while a run lasts. "
                "Fix: make room, or set HF_DATASETS_CACHE to a folder with more"
            ) from error
        self._ends.append(end)

    def _move(self) -> None:
        """From memory into a file."""
        held, self._file = self._file, TemporaryFile(dir=scratch())  # noqa: SIM115
        finalize(self, self._file.close)
        held.seek(0)
        copyfileobj(held, self._file)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        number = range(len(self))[place]
        self._file.seek(self._ends[number])
        return self._read(json.loads(self._file.read(self._ends[number + 1] - self._ends[number])))
