"""Files packed by gzip or zstandard."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO

import zstandard

from oneloop.errors import DataError

PACKED = (".gz", ".zst")
_CHUNK = 1 << 20


def unpacked(path: Path) -> IO[bytes]:
    """The file, or a nameless copy of what is packed in it: nothing stays behind, and nothing grows old.

    Raises: DataError for a file that cannot be read, is cut off or damaged.
    """
    if path.suffix.lower() not in PACKED:
        return _opened(path)
    plain = TemporaryFile(dir=scratch())  # noqa: SIM115
    try:
        for chunk in _unpacking(path):
            plain.write(chunk)
    except DataError:
        plain.close()
        raise
    plain.seek(0)
    return plain


def unpacked_path(path: Path) -> Path:
    """The same for a reader that wants a name: a copy in the cache, named by what is in it."""
    if path.suffix.lower() not in PACKED:
        return path
    digest = sha256()
    with NamedTemporaryFile(dir=scratch(), delete=False) as plain:
        try:
            for chunk in _unpacking(path):
                digest.update(chunk)
                plain.write(chunk)
        except DataError:
            os.unlink(plain.name)
            raise
    named = Path(scratch()) / f"oneloop-{digest.hexdigest()[:32]}{path.with_suffix('').suffix}"
    if named.exists():  # its age is part of the name under which `datasets` keeps the rows
        os.unlink(plain.name)
    else:
        os.replace(plain.name, named)
    return named


def scratch() -> str:
    """Where large files may lie: the cache of `datasets`, because a temporary folder may be memory."""
    home = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    folder = Path(os.environ.get("HF_DATASETS_CACHE", f"{home}/datasets")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None


def _unpacking(path: Path) -> Iterator[bytes]:
    lines = 0
    with _opened(path) as file:
        try:
            for chunk in _gzip(file) if path.suffix.lower() == ".gz" else _zstandard(file):
                lines += chunk.count(b"\n")
                yield chunk
        except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
            raise DataError(
                f"{path}:{lines + 1}: cannot be unpacked ({type(error).__name__}: {error}) after {lines} whole lines: "
                "it is cut off or damaged. Fix: download or write it again"
            ) from None


def _gzip(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as packed:
        # what was read before a break is still given: it tells how far the file is whole
        while chunk := packed.read1(_CHUNK):
            yield chunk


def _zstandard(file: IO[bytes]) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    while chunk := file.read(_CHUNK):
        while chunk:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            begun = True
            yield frame.decompress(chunk)
            chunk = frame.unused_data if frame.eof else b""
    if begun and not frame.eof:
        raise EOFError("the last frame has no end")
