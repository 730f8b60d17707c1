"""Where a run folder may lie, and what may lie in it."""

from __future__ import annotations

import os
from pathlib import Path

from oneloop.errors import ConfigError

LONGEST_NAME, LONGEST_PATH = 255, 4000
"""Bytes that file systems allow a name, and Linux a path: less than 4096, so that the files below fit too."""
ROOM = 40
"""Bytes that the name of a temporary file beside it may be longer."""


def check_place(path: Path) -> None:
    """Whether a folder of that name can stand there.

    Raises: ConfigError naming what stands in its way.
    """
    text = os.fspath(path)
    if odd := next((character for character in text if ord(character) < 32 or ord(character) == 127), None):
        raise ConfigError(f"--out {text!r} has the control character {odd!r} in it. Fix: a name without it")
    for name in path.parts:
        if len(os.fsencode(name)) > LONGEST_NAME - ROOM:
            raise ConfigError(
                f"--out: a name in it has {len(os.fsencode(name))} bytes, {name[:40]!r}…; wanted at most "
                f"{LONGEST_NAME - ROOM}. Fix: a shorter one"
            )
    if len(os.fsencode(path.absolute())) > LONGEST_PATH:
        raise ConfigError(f"--out has {len(os.fsencode(path.absolute()))} bytes; wanted at most {LONGEST_PATH}")
    if path.name.startswith((".tmp-", ".replaced-")):
        raise ConfigError(f"--out {path}: names that begin so are for temporary files. Fix: another name")
    _check_above(path)
    if _holds_other_files(path):
        raise ConfigError(f"--out {path} holds files, but no run. Fix: a folder that does not exist yet")


def _check_above(path: Path) -> None:
    """Of what is there already, the innermost folder: it must be one, and writable."""
    for above in (path, *path.absolute().parents):
        try:
            there = above.exists()
        except OSError as error:  # a loop of links, no permission
            raise ConfigError(
                f"--out {path}: {above} cannot be looked at ({error.strerror}). Fix: another --out"
            ) from error
        if there:
            if not above.is_dir():
                what = "is a file; wanted a folder to create" if above == path else f"cannot be: {above} is a file"
                raise ConfigError(f"--out {path} {what}")
            if not os.access(above, os.W_OK | os.X_OK):
                raise ConfigError(f"--out {path}: {above} cannot be written by this user. Fix: another --out")
            return


def check_own(path: Path) -> None:
    """Nothing that a run opens may lead out of its folder.

    Raises: ConfigError naming a link.
    """
    for place in (path, path / "checkpoints"):
        for entry in place.iterdir() if place.is_dir() else ():
            if entry.is_symlink():
                raise ConfigError(
                    f"--out {path}: {entry} is a link, and a run writes in its own folder only. Fix: put what it "
                    "names in its place, or another --out (which may be a link itself)"
                )


def holds_run(path: Path) -> bool:
    """Whether a run lies there, also one whose run.json a crash or a person took."""
    return path.is_dir() and ((path / "run.json").exists() or (path / "config.toml").exists())


def _holds_other_files(path: Path) -> bool:
    """Files, but no run. A lock or a half-written run.json are what a process killed at its start leaves behind."""
    if not path.is_dir() or holds_run(path):
        return False
    return any(entry.name != ".lock" and not entry.name.startswith(".tmp-run.json-") for entry in path.iterdir())
