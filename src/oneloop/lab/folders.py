"""A folder that is read strictly below itself: plain names, plain files, no links."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
MOST = 64 * 2**20
"""Bytes of a file that is read as a whole."""


def plain(name: str) -> bool:
    """Whether a name can stand in a path: letters, digits, dots, dashes and underscores; no `..`, no separator.

    >>> plain("step_000012.parquet"), plain(".."), plain("a/b"), plain("a\\0b")
    (True, False, False, False)
    """
    return _NAME.fullmatch(name) is not None


class Folder:
    """Read access to one folder. Every method raises OSError where something is not there or is not what it should be.

    A link is refused wherever it stands, for what it names could lie anywhere. A pipe or a device is refused too: to
    open one could block for ever.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def open(self, *parts: str) -> Iterator[BinaryIO]:
        """A file below the folder."""
        place = self._place(parts)
        try:
            # not blocking: a pipe in the file's place must not hold up the server
            file = os.open(parts[-1], _FLAGS | os.O_NONBLOCK, dir_fd=place)
        finally:
            os.close(place)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(f"{'/'.join(parts)} is no plain file")
        with os.fdopen(file, "rb") as stream:
            yield stream

    def read(self, *parts: str, most: int = MOST) -> bytes:
        """The whole file, unless it has more than so many bytes."""
        with self.open(*parts) as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise OSError(f"{'/'.join(parts)} has more than {most} bytes")
        return content

    def text(self, *parts: str) -> str | None:
        """The words of a small file; None where there is none."""
        try:
            return self.read(*parts, most=2**20).decode("utf-8", "replace")
        except OSError:
            return None

    def facts(self, *parts: str) -> tuple[int, int, int] | None:
        """What changes with a file: its inode, its bytes, its time of change in ns. None where there is none."""
        try:
            with self.open(*parts) as stream:
                found = os.fstat(stream.fileno())
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def names(self, *parts: str) -> list[str]:
        """Plain files of a folder below, in order; none where it does not exist."""
        try:
            place = self._place((*parts, "."))
        except OSError:
            return []
        try:
            with os.scandir(place) as entries:
                return sorted(
                    entry.name for entry in entries if plain(entry.name) and entry.is_file(follow_symlinks=False)
                )
        finally:
            os.close(place)

    def has_others(self, part: str) -> bool:
        """Whether a folder below is a link, or holds anything but plain files and folders."""
        path = self.path / part
        try:
            if path.is_symlink():
                return True
            with os.scandir(path) as entries:
                return any(
                    not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
                    for entry in entries
                )
        except OSError:
            return False

    def exists(self) -> bool:
        return self.path.is_dir() and not self.path.is_symlink()

    def _place(self, parts: tuple[str, ...]) -> int:
        """A handle of the folder in which the last part stands; each step down is one name, and no link."""
        for part in parts:
            if not plain(part) and part != ".":
                raise FileNotFoundError(f"{part!r} is no name of a file")
        place = os.open(self.path, _FLAGS | os.O_DIRECTORY)
        for part in parts[:-1]:
            try:
                below = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=place)
            finally:
                os.close(place)
            place = below
        return place
