"""A run's folder as others see it, also while it is written."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from oneloop.errors import ConfigError
from oneloop.record.lines import Read
from oneloop.record.steps import StepTables

METRICS, EVENTS, MEMORY, EVALUATIONS = "metrics.jsonl", "events.jsonl", "memory.jsonl", "eval.jsonl"

LARGEST = sys.float_info.max


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds. Files of lines are read when they are asked for; lines that cannot be read are left out.

    Where a step was written twice, the later line counts, and the order is that of the steps.
    """

    path: Path
    info: dict[str, Any]
    config: dict[str, Any]

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        rows = {row["step"]: row for row in self.lines(METRICS)}
        return [rows[step] for step in sorted(rows)]

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        return list(self.lines(EVENTS))

    @cached_property
    def memory(self) -> list[dict[str, Any]]:
        return list(self.lines(MEMORY))

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """What eval.jsonl says: `done` finished steps (0: before the first), `time`, and the `eval/...` values."""
        return list(self.lines(EVALUATIONS))

    def lines(self, name: str) -> Read:
        """The rows of one of the files of lines, one at a time and as they stand; it counts what cannot be read."""
        return Read(self.path / name, "done" if name == EVALUATIONS else "step")

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, where it was logged and finite."""
        points = [(row["step"], row[name]) for row in self.metrics if _is_finite(row.get(name))]
        return [step for step, _ in points], [float(value) for _, value in points]

    def tables(self, name: str) -> StepTables:
        """The tables by step of a folder: rollouts, ratios, tokens or pairs."""
        return StepTables(self.path / name)

    def rollout_steps(self) -> list[int]:
        return self.tables("rollouts").steps()

    def rollouts(self, step: int) -> list[dict[str, Any]]:
        """One row per completion of a step.

        Raises: ConfigError for a step whose completions were not kept.
        """
        return self.rows("rollouts", step)

    def rows(self, name: str, step: int) -> list[dict[str, Any]]:
        """The rows of a step in one of `tables`.

        Raises: ConfigError for a step that has none; DataError where the file cannot be read.
        """
        tables = self.tables(name)
        try:
            return tables.read(step)
        except KeyError:
            steps = tables.steps()
            there = f"there are {len(steps)} steps from {steps[0]} to {steps[-1]}" if steps else "the run has none"
            raise ConfigError(f"{self.path} has no {_TABLES[name]} of step {step}; {there}") from None


_TABLES = {"rollouts": "completions", "ratios": "ratios", "tokens": "tokens", "pairs": "pairs"}


def read_run(path: Path, *, torn: bool = False) -> RunRecord:
    """A run folder, also while it is written.

    Args:
        torn: whether run.json may be missing or unreadable, of which nothing is known then.

    Raises: ConfigError when there is no run at `path`, or run.json or config.toml cannot be read.
    """
    try:
        there = torn or (path / "run.json").is_file()
    except (OSError, ValueError):  # no name that a file could have
        there = False
    if not there:
        raise ConfigError(f"{path} is not a run folder (no run.json). Fix: the --out folder of a run")
    config = path / "config.toml"
    return RunRecord(
        path=path,
        info=info_of(path) if torn else _parsed(path / "run.json", json.loads),
        config=_parsed(config, tomllib.loads) if config.exists() else {},
    )


def info_of(path: Path) -> dict[str, Any]:
    """run.json of a run folder, or nothing where it is not there or a crash has torn it."""
    try:
        return _parsed(path / "run.json", json.loads)
    except ConfigError:
        return {}


def _parsed(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no plain file")
        found = parse(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); wanted the file as the run wrote it. Fix: put it back; --resume makes "
            "run.json anew"
        ) from error
    return found


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
