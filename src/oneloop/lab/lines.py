"""Files of JSON lines, from where the reader has been before: whole lines only, never the whole file."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, BinaryIO, NamedTuple

from oneloop.lab.folders import Folder

ROWS, BLOCK, LONGEST = 2000, 2**20, 64 * 2**20
"""Most lines of an answer; bytes that are read at once; the longest line that is waited for."""


class Page(NamedTuple):
    """Lines of a file."""

    rows: list[dict[str, Any]]
    offset: int
    """Bytes up to the end of the last line that was read."""
    reset: bool
    """The file is not the one that was read before, so these lines are from its start."""
    mark: str
    """Tells the line before `offset`: another line there means another file of the same length."""
    damaged: int
    """Whole lines that are no JSON objects; they are left out of `rows`."""

    def answer(self) -> dict[str, Any]:
        return self._asdict()


def page(folder: Folder, name: str, offset: int, mark: str = "") -> Page:
    """The next lines. A file that is not there yet has none, and one that became shorter starts again."""
    try:
        with folder.open(name) as file:
            return _page(file, offset, mark)
    except FileNotFoundError:
        return Page([], 0, offset > 0, "", 0)


def _page(file: BinaryIO, offset: int, mark: str) -> Page:
    reset = offset > 0 and not _stands(file, offset, mark)
    start = 0 if reset else offset
    content = block(file, start)
    rows, used, damaged = [], 0, 0
    for line in content.split(b"\n")[:-1][:ROWS]:
        used += len(line) + 1
        row = parsed(line)
        damaged += row is None and bool(line.strip())
        rows += [] if row is None else [row]
    end = start + used
    return Page(rows, end, reset, mark_at(file, end), damaged)


def block(file: BinaryIO, start: int, size: int = BLOCK) -> bytes:
    """Whole lines from `start`, at most `size` bytes unless the first one is longer; empty where there is none yet."""
    file.seek(start)
    content = file.read(size)
    while b"\n" not in content and len(content) < LONGEST and (more := file.read(size)):
        content += more
    return content[: content.rfind(b"\n") + 1]


def parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def mark_at(file: BinaryIO, offset: int) -> str:
    """Of the bytes just before, which hold the time of a step and so are hardly ever written twice."""
    file.seek(max(offset - 512, 0))
    return blake2b(file.read(min(offset, 512)), digest_size=6).hexdigest() if offset else ""


def tail(file: BinaryIO, size: int = 2**16) -> dict[str, Any] | None:
    """The last whole line that is an object, among the last so many bytes."""
    end = file.seek(0, 2)
    file.seek(max(end - size, 0))
    lines = file.read(size).split(b"\n")[:-1]
    return next((row for line in reversed(lines) if (row := parsed(line)) is not None), None)


def sampled(file: BinaryIO, count: int) -> list[dict[str, Any]]:
    """Lines evenly spread over the file, by few short reads whatever its size."""
    end = file.seek(0, 2)
    if end <= 2**16:
        file.seek(0)
        rows = [row for line in file.read(end).split(b"\n")[:-1] if (row := parsed(line)) is not None]
        return [rows[place * (len(rows) - 1) // (count - 1)] for place in range(count)] if len(rows) > count else rows
    rows = []
    for place in range(count):
        file.seek(max((end - 2**14) * place // (count - 1), 0))
        lines = file.read(2**14).split(b"\n")
        # the first piece is the end of a line that began before, unless this is the start of the file
        row = next((row for line in lines[place > 0 : -1] if (row := parsed(line)) is not None), None)
        rows += [] if row is None else [row]
    return rows


def _stands(file: BinaryIO, offset: int, mark: str) -> bool:
    """Whether what was read up to `offset` is still there."""
    file.seek(offset - 1)
    return file.read(1) == b"\n" and (not mark or mark == mark_at(file, offset))
