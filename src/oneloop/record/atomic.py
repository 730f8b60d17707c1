"""Files and folders that are either whole or not there, whenever the process is killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from oneloop.errors import CheckpointError
from oneloop.together import Alone, Crew, by_first, together

MANIFEST = "manifest.json"
_TEMPORARY = ".tmp-"
_REPLACED = ".replaced-"
"""An older folder that stepped aside for a new one: whole, and the only one of its name until the new one stands."""


def write_text(path: Path, text: str) -> None:
    """Write beside the target, flush to disk, rename over it. If that fails, the older file stays."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def half_written(path: Path) -> bool:
    """A file that a process was writing when it was killed."""
    return path.name.startswith(_TEMPORARY) and path.is_file()


@contextmanager
def new_folder(path: Path, writers: Crew = Alone()) -> Iterator[Path]:  # noqa: B008
    """A temporary folder that becomes `path` when the block ends well, with a manifest of its files' hashes.

    An older folder of that name is replaced; if the block raises, it stays. A process killed at any moment leaves
    the old or the new one, under its name once `clean_temporaries` has run.

    Args:
        writers: all of them enter, and write files of their own into the block's folder; the first makes and renames
            it. Where the block raises for one of them, it raises for all, and there is no new folder.
    """
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{writers.agree(os.getpid())}")
    try:
        by_first(writers, partial(_make, temporary))
        try:
            yield temporary  # a call in it that waits for others fails for all of them, or for none
        except Exception as error:
            together(writers, partial(_raise, error))
        else:
            together(writers, _nothing)
        sealed = together(writers, partial(_sealed, temporary, writers))
        manifest = {name: facts for part in writers.collect([sealed]) for name, facts in part.items()}
        by_first(writers, partial(_stand, temporary, path, manifest))
    except BaseException:
        if writers.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _make(temporary: Path) -> None:
    if not temporary.parent.is_dir():
        temporary.parent.mkdir(parents=True)
        _sync(temporary.parent.parent)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()


def _raise(error: Exception) -> None:
    raise error


def _nothing() -> None: ...


def _stand(temporary: Path, path: Path, manifest: dict[str, dict[str, Any]]) -> None:
    """The manifest comes last: where it stands, everything before it stands."""
    write_text(temporary / MANIFEST, json.dumps(dict(sorted(manifest.items())), indent=1))
    _swap(temporary, path)


def verify(folder: Path, needs: Sequence[str] = ()) -> None:
    """Compare every file of the folder with its manifest.

    Args:
        needs: patterns of names, each of which the manifest must list a file for.

    Raises: CheckpointError naming the file that is missing, not as it was written, or not in the manifest.
    """
    manifest = _manifest(folder / MANIFEST)
    for wanted in needs:
        if not any(fnmatch(name, wanted) for name in manifest):
            raise CheckpointError(f"{folder / MANIFEST} lists no {wanted}, which is needed. {_fix(folder)}")
    for name in _files(folder):
        if name not in manifest and name != MANIFEST:
            raise CheckpointError(f"{folder / name} is not in {MANIFEST}: nobody can tell what it is. {_fix(folder)}")
    for name, facts in manifest.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, and {MANIFEST} lists it. {_fix(folder)}")
        if file.stat().st_size != facts["bytes"]:
            raise CheckpointError(
                f"{file} has {file.stat().st_size} bytes; {MANIFEST} says {facts['bytes']}. {_fix(folder)}"
            )
        try:
            same = _digest(file) == facts["sha256"]
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read ({error.strerror}). {_fix(folder)}") from error
        if not same:
            raise CheckpointError(f"{file} is not as it was written: its SHA-256 is another one. {_fix(folder)}")


def _files(folder: Path) -> Iterator[str]:
    """Names of what lies in the folder and below; what a file manager or a network disk leaves there, aside.

    Raises: CheckpointError for a link: what it names may lie anywhere.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (Path(place) / name).is_symlink():
                raise CheckpointError(
                    f"{Path(place) / name} is a link, and a run reads its own files only. {_fix(folder)}"
                )
        yield from (str((Path(place) / name).relative_to(folder)) for name in files if not name.startswith("."))


def remove_folder(path: Path) -> None:
    """A folder that is whole, or not there: a kill on the way leaves what `clean_temporaries` takes away."""
    going = path.with_name(f"{_TEMPORARY}{path.name}-{os.getpid()}")
    os.rename(path, going)
    shutil.rmtree(going, ignore_errors=True)


def clean_temporaries(root: Path) -> None:
    """Tidy up after killed processes, in `root` and in its folders.

    What was being written goes; a folder that stepped aside for one that never came gets its name back.
    Call it while nobody else writes there.
    """
    for aside in [*root.glob(f"{_REPLACED}*"), *root.glob(f"*/{_REPLACED}*")]:
        path = aside.with_name(aside.name.removeprefix(_REPLACED).rpartition("-")[0])
        if path.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, path)
    for leftover in [*root.glob(f"{_TEMPORARY}*"), *root.glob(f"*/{_TEMPORARY}*")]:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            # one inside another left with it
            leftover.unlink(missing_ok=True)


def _manifest(path: Path) -> dict[str, dict[str, Any]]:
    """File name → its size and hash. The manifest itself may be damaged in any way."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not manifest:
            raise ValueError("it lists no file")
        for name, facts in manifest.items():
            if Path(name).is_absolute() or ".." in Path(name).parts or facts.keys() != {"bytes", "sha256"}:
                raise ValueError(f"its entry {name!r} is not one of a manifest")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}). {_fix(path.parent)}") from error
    return manifest


def _fix(folder: Path) -> str:
    return f"Fix: rm -r {folder}, and use an older one"


def _sealed(folder: Path, writers: Crew) -> dict[str, dict[str, Any]]:
    """Flush this writer's share of the files; returns their sizes and hashes."""
    mine = sorted(folder.rglob("*"))[writers.rank :: writers.ranks]
    for entry in mine:
        _sync(entry)
    return {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": _digest(file)}
        for file in mine
        if file.is_file()
    }


def _swap(temporary: Path, path: Path) -> None:
    """A folder cannot be renamed over another: the old one steps aside first, and comes back if that was in vain."""
    aside = path.with_name(f"{_REPLACED}{path.name}-{os.getpid()}")
    replaces = path.exists()
    if replaces:
        if aside.exists():  # of a replacement that failed after the new one stood
            shutil.rmtree(aside)
        os.rename(path, aside)
    try:
        os.rename(temporary, path)
    except OSError:
        if replaces:
            os.rename(aside, path)
        raise
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
