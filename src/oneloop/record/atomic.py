"""Files and folders that are either whole or not there, whenever the process is killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from oneloop.errors import CheckpointError

MANIFEST = "manifest.json"
_TEMPORARY = ".tmp-"


def write_text(path: Path, text: str) -> None:
    """Write beside the target, flush to disk, rename over it."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, with a manifest of its files' hashes.

    An older folder of that name is replaced; if the block raises, it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        _seal(temporary)
        _swap(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def verify(folder: Path) -> None:
    """Raises: CheckpointError naming the file that is missing or not as it was written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST} cannot be read ({error}); the folder is not whole") from error
    for name, facts in manifest.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != facts["bytes"] or _digest(file) != facts["sha256"]:
            raise CheckpointError(f"{file} is not as it was written")


def clean_temporaries(root: Path) -> None:
    """Remove what killed processes left behind, in `root` and in its folders."""
    for leftover in [*root.glob(f"{_TEMPORARY}*"), *root.glob(f"*/{_TEMPORARY}*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _seal(folder: Path) -> None:
    """Flush every file, then write the manifest last: where it stands, everything before it stands."""
    manifest = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        _sync(file)
        manifest[str(file.relative_to(folder))] = {"bytes": file.stat().st_size, "sha256": _digest(file)}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1))


def _swap(temporary: Path, path: Path) -> None:
    """A folder cannot be renamed over another: the old one steps aside first."""
    aside = path.with_name(f"{_TEMPORARY}old-{path.name}-{os.getpid()}")
    if path.exists():
        os.rename(path, aside)
    os.rename(temporary, path)
    _sync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        digest = sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
