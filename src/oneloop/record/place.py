"""Where a run folder may lie, and what may lie in it."""

from __future__ import annotations

import os
from pathlib import Path

from oneloop.errors import ConfigError

LONGEST_NAME, LONGEST_PATH = 255, 4000
"""Bytes that file systems allow a name, and Linux a path: less than 4096, so that the files below fit too."""
ROOM = 40
"""Bytes that the name of a temporary file beside it may be longer."""


def check_place(path: Path, flag: str = "--out") -> None:
    """Whether a folder of that name can stand there.

    Raises: ConfigError naming what stands in its way.
    """
    text = os.fspath(path)
    if odd := next((character for character in text if ord(character) < 32 or ord(character) == 127), None):
        raise ConfigError(f"{flag} {text!r} has the control character {odd!r} in it. Fix: a name without it")
    for name in path.parts:
        if (size := len(os.fsencode(name))) > LONGEST_NAME - ROOM:
            raise ConfigError(
                f"{flag}: a name in it has {size} bytes, {name[:40]!r}…; wanted at most {LONGEST_NAME - ROOM}. "
                "Fix: a shorter one"
            )
    if (size := len(os.fsencode(path.absolute()))) > LONGEST_PATH:
        raise ConfigError(f"{flag} has {size} bytes; wanted at most {LONGEST_PATH}. Fix: a shorter one")
    if path.name.startswith((".tmp-", ".replaced-")):
        raise ConfigError(f"{flag} {path}: names that begin so are for temporary files. Fix: another name")
    _check_above(path, flag)


def check_run_place(path: Path) -> None:
    """Whether a run can have its folder there: one that does not exist, is empty, or holds a run.

    Raises: ConfigError.
    """
    check_place(path)
    if _holds_other_files(path):
        raise ConfigError(f"--out {path} holds files, but no run. Fix: a folder that does not exist yet")


def _check_above(path: Path, flag: str) -> None:
    """Of what is there already, the innermost folder: it must be one, and writable."""
    fix = f"Fix: another {flag}"
    for above in (path, *path.absolute().parents):
        try:
            there = above.exists()
        except OSError as error:  # no permission
            raise ConfigError(f"{flag} {path}: {above} cannot be looked at ({error.strerror}). {fix}") from error
        if there:
            if not above.is_dir():
                what = "is a file; wanted a folder to create" if above == path else f"cannot be: {above} is a file"
                raise ConfigError(f"{flag} {path} {what}. {fix}")
            if not os.access(above, os.W_OK | os.X_OK):
                raise ConfigError(f"{flag} {path}: {above} cannot be written by this user. {fix}")
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
    others = any(entry.name != ".lock" and not entry.name.startswith(".tmp-run.json-") for entry in path.iterdir())
    return others and not holds_run(path)  # another process may have begun one between the two looks
