"""A file of JSON lines: append only, whole lines only, whatever kills the process or fills the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneloop.errors import CheckpointError, DataError


class Lines:
    """One process's end of a JSONL file. Nothing is buffered: a line is in the file when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # a torn last line would run into the next one
        whole = len(_whole(path.read_bytes())) if path.exists() else 0
        self._file = path.open("ab", buffering=0)
        self.cut(whole)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line, or raise OSError and leave the file as it was."""
        # backslashreplace: a lone surrogate, from a broken token, is written as the JSON escape that it has
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
        start = self.size()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self.cut(start)
            raise

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def check(self, size: int) -> None:
        """Raises: CheckpointError unless a line ends at `size`."""
        if size and self.path.read_bytes()[size - 1 : size] != b"\n":
            raise CheckpointError(
                f"{self.path} has {self.size()} bytes, and the checkpoint was saved when {size} bytes of whole lines "
                "stood there: lines that belong to the run are gone. Fix: put the file back, or start again with "
                "another --out"
            )

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes."""
        os.ftruncate(self._file.fileno(), size)

    def last_step(self) -> int:
        """The step of the last line; -1 without lines."""
        rows = read_lines(self.path)
        return rows[-1]["step"] if rows else -1

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines only: the last one may be half written, or torn by a kill.

    Raises: DataError naming a whole line that is not JSON.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(_whole(path.read_bytes()).split(b"\n"), 1):
        try:
            rows += [json.loads(line)] if line else []
        except ValueError as error:
            raise DataError(
                f"{path}:{number} is not JSON ({error}); something else wrote to this file. "
                f"Fix: sed -i {number}d {path}"
            ) from error
    return rows


def _whole(content: bytes) -> bytes:
    """Up to the last line end."""
    return content[: content.rfind(b"\n") + 1]
