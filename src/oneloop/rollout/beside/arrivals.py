"""When new weights met the completions on their way: recorded, so that a run can be done again token by token."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from oneloop.errors import ConfigError

FOLDER = "arrivals"
"""In a run folder: a file for each rank."""


def arrivals_file(run: Path, rank: int) -> Path:
    return run / FOLDER / f"{rank}.jsonl"


def ignored(passes: int) -> None:
    """Nobody will ask."""


class Arrivals:
    """A line for each message that a sampler takes, in order: after how many tokens it was taken."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, passes: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"after": passes}) + "\n")


def script(path: Path) -> list[int]:
    """What `Arrivals` wrote.

    Raises: ConfigError where that is not one run from its start.
    """
    try:
        passes = [int(json.loads(line)["after"]) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"--replay: {path} cannot be read ({error}). Fix: the folder of a run with --in-flight continue"
        ) from None
    if any(later < before for before, later in pairwise(passes)):
        raise ConfigError(
            f"--replay: {path} is of a run that was resumed, where what was on its way was drawn again. "
            "Fix: a run without --resume"
        )
    return passes
