"""The runs that there are: found under the folders that the command names, each under an id of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from oneloop.errors import ConfigError
from oneloop.lab.answers import Refusal
from oneloop.lab.folders import Folder, plain
from oneloop.lab.foreign import kind_of
from oneloop.lab.own import OwnRun
from oneloop.lab.source import Source

DEMO = Path(__file__).parent / "recorded"
"""Small runs that ship with the package."""
DEPTH, MOST = 3, 2000
"""How deep below a given folder runs are looked for; how many folders are looked at."""
EVERY = 2.0
"""Seconds between looks at the disk."""
Kind = Callable[[Folder], Source]


class Catalog:
    """Ids and runs. Folders are looked at again, so that new runs appear; a run that is gone stays, and says so.

    Args:
        roots: run folders, folders of runs, folders of others' runs.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [root.resolve() for root in roots]
        self._lock = threading.Lock()
        self._runs: dict[str, tuple[str, Source]] = {}
        self._ids: dict[tuple[Path, Kind], str] = {}
        self._looked = -EVERY

    def runs(self) -> dict[str, tuple[str, Source]]:
        """Name and run by id, in the order in which they were found."""
        with self._lock:
            if monotonic() - self._looked >= EVERY:
                for root in self._roots:
                    for path, kind in found(root):
                        self._add(root, path, kind)
                self._looked = monotonic()
            return dict(self._runs)

    def get(self, name: str) -> tuple[str, Source]:
        """Raises: Refusal where there is no run of that id."""
        runs = self.runs()
        if name not in runs:
            raise Refusal(404, "there is no run of that name here", "look at the list of runs, /api/runs")
        return runs[name]

    def _add(self, root: Path, path: Path, kind: Kind) -> None:
        if (path, kind) in self._ids:
            return
        name = path.name if path == root else str(path.relative_to(root))
        wanted, number = (path.name, 1) if plain(path.name) else ("run", 1)
        made = wanted if plain(path.name) else "run-1"
        while made in self._runs:
            number += 1
            made = f"{wanted[:120]}-{number}"
        self._ids[path, kind] = made
        self._runs[made] = (name, kind(Folder(path)))


def found(root: Path) -> list[tuple[Path, Kind]]:
    """Runs at or below a folder; those higher up first, then by name. Links are not followed."""
    runs: list[tuple[Path, Kind]] = []
    level, looked = [root], 0
    for _ in range(DEPTH + 1):
        below: list[Path] = []
        for path in level:
            looked += 1
            if looked > MOST:
                return runs
            kind: Kind | None = OwnRun if (path / "run.json").exists() else kind_of(path)
            if kind is not None:
                runs.append((path, kind))
            else:
                below += _folders(path)
        level = below
    return runs


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            )
    except OSError:
        return []
    return [path / name for name in names]


def roots(words: Sequence[str]) -> list[Path]:
    """The folders that a command names; without any, `runs`, whether it is there or not.

    Raises: ConfigError for a folder that is not there.
    """
    for word in words:
        if not os.path.isdir(word):  # says no of a name that no file could have
            what = "is no folder" if os.path.exists(word) else "does not exist"
            raise ConfigError(f"{word} {what}; wanted run folders, or folders of runs. Fix: oneloop lab runs")
    return [Path(word) for word in words or ["runs"]]
