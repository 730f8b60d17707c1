"""A file of JSON lines: append only, whole lines only, whatever kills the process or fills the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from oneloop.errors import CheckpointError, DiskError

BLOCK = 1 << 20
"""Bytes that are read at once."""
LONGEST = 64 << 20
"""Bytes of the longest line that is read; what is longer counts as a broken one."""


class Lines:
    """One process's end of a JSONL file. Nothing is buffered: a line is in the file when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self._file = os.fdopen(handle, "ab+", buffering=0)
        # a torn last line would run into the next one
        self._end = _last_line_end(self._file)
        self.cut(self._end)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line, or raise DiskError and leave the file as it was."""
        # backslashreplace: a lone surrogate, from a broken token, is written as the JSON escape that it has
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
        self.check_there()
        start = self._end
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with suppress(OSError):
                self.cut(start)
            raise DiskError(f"{self.path} cannot be written: {error.strerror}. {_ROOM}") from error
        self._end = start + len(line)

    def check_there(self) -> None:
        """Raises: DiskError where the file is not the one that this process writes, or not as it left it."""
        mine = os.fstat(self._file.fileno())
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError as error:
            raise DiskError(f"{self.path} is gone ({error.strerror}): somebody deleted or moved it") from error
        if (there.st_ino, there.st_dev) != (mine.st_ino, mine.st_dev):
            raise DiskError(f"{self.path} is another file now: somebody replaced it")
        if mine.st_size != self._end:
            raise DiskError(
                f"{self.path} has {mine.st_size} bytes, and this run wrote {self._end}: somebody else changed it"
            )

    def size(self) -> int:
        """Bytes in the file."""
        return self._end

    def check(self, size: int, column: str, below: int) -> None:
        """Raises: CheckpointError unless a line ends at `size`, and the number in its `column` is below."""
        if size == 0 or (os.pread(self._file.fileno(), 1, size - 1) == b"\n" and self._last(column, size) < below):
            return
        raise CheckpointError(
            f"{self.path} has {self.size()} bytes, and the checkpoint was saved when {size} bytes of other lines "
            "stood there: lines that belong to the run are gone. Fix: put the file back, or --accept-loss, which goes "
            "on with the lines that are left"
        )

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes."""
        os.ftruncate(self._file.fileno(), size)
        self._end = size

    def cut_where(self, column: str, below: int) -> None:
        """Keep whole lines up to the first one whose number in `column` is not below: for a file that has lost some."""
        with self.path.open("rb") as file:
            for start, line in _every(file):
                row = parsed(line)
                if row is not None and _whole(row.get(column)) and row[column] >= below:
                    return self.cut(start)

    def broken(self) -> str:
        """What cannot be read of it, in words; "" where everything can."""
        lines = Read(self.path)
        for _ in lines:
            pass
        where = f"{lines.damaged} of its lines cannot be read and are left out, the first is line {lines.first}"
        return f"{self.path}: {where}" if lines.damaged else ""

    def last_step(self) -> int:
        """The step of the last line that has one; -1 without lines."""
        return self._last("step", self._end)

    def _last(self, column: str, end: int) -> int:
        """The number in the last line that has one, of those that end at `end` or before; -1 without."""
        with self.path.open("rb") as file:
            for line in _backwards(file, end):
                row = parsed(line)
                if row is not None and _whole(row.get(column)):
                    return row[column]
        return -1

    def close(self) -> None:
        self._file.close()


_ROOM = "Fix: make room, then the same command with --resume"


class Read:
    """The rows of a JSONL file, one at a time, however large it is; `damaged` counts the lines that were left out.

    The last line may be half written, or torn by a kill: it is no line yet. Of a block of zero bytes, which a machine
    that lost power leaves, the line behind it stays.

    Args:
        column: name of a whole number that a row must have.
    """

    def __init__(self, path: Path, column: str | None = None) -> None:
        self._path, self._column = path, column
        self.damaged = 0
        self.first = 0
        """Number of the first line that was left out, from 1."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.damaged = self.first = 0
        try:
            file = self._path.open("rb") if self._path.is_file() else None
        except OSError:
            file, self.damaged = None, 1
        if file is None:
            return
        with file:
            for number, (_, line) in enumerate(_every(file), 1):
                row = parsed(line)
                if row is not None and (self._column is None or _whole(row.get(self._column))):
                    yield row
                elif line.strip():
                    self.damaged += 1
                    self.first = self.first or number


def parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None where it is none."""
    try:
        row = json.loads(line.strip(b"\0 \r\t").decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _every(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Whole lines with the place where each begins; of one that is too long, nothing."""
    start, held, skipping = 0, b"", False
    while block := file.read(BLOCK):
        *lines, rest = (held + block).split(b"\n")
        for line in lines:
            if not skipping:
                yield start, line
            else:
                yield start, b"?"  # its end; it counts as one broken line
            skipping = False
            start += len(line) + 1
        held = rest
        if len(held) > LONGEST:
            start, held, skipping = start + len(held), b"", True


def _backwards(file: BinaryIO, end: int) -> Iterator[bytes]:
    """Whole lines, the last one first."""
    held = b""
    while end > 0:
        size = min(BLOCK, end)
        end -= size
        file.seek(end)
        lines = (file.read(size) + held).split(b"\n")
        held = lines[0][:LONGEST]
        yield from reversed(lines[1:])
    yield held


def _last_line_end(file: BinaryIO) -> int:
    """Bytes up to the last line end."""
    end = os.fstat(file.fileno()).st_size
    while end > 0:
        start = max(end - BLOCK, 0)
        found = os.pread(file.fileno(), end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
