"""One writer: who has the lock of a run folder, and how one gets it."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from weakref import WeakSet

from oneloop.errors import ConfigError
from oneloop.record.reader import info_of

_held: WeakSet[IO[str]] = WeakSet()


def _let_go() -> None:
    """A fork shares its parent's locks, and would keep them when the parent is gone."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_let_go)


def locked(path: Path) -> IO[str]:
    """The kernel drops the lock when its process ends, in whatever way."""
    lock = (path / ".lock").open("a")
    _held.add(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigError(
            f"--out {path} is being written by {_owner(path)}. Fix: wait for it, stop it, or another --out"
        ) from None
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"--out {path} cannot be locked ({error}). Fix: an --out on a file system with flock, such as a local disk"
        ) from error
    return lock


def _owner(path: Path) -> str:
    """Who holds the lock, as run.json says."""
    info = info_of(path)
    try:
        since = datetime.fromtimestamp(info["started"], UTC).isoformat(sep=" ", timespec="seconds")
        return f"process {info['pid']} on {info['host']} since {since}"
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return "another process, which has only just started"
