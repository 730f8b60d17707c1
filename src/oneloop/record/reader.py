"""A run's folder as others see it, also while it is written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneloop.errors import ConfigError
from oneloop.record.lines import read_lines
from oneloop.record.steps import StepTables


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds."""

    path: Path
    info: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    events: list[dict[str, Any]]
    memory: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """What eval.jsonl says: `done` finished steps (0: before the first), `time`, and the `eval/...` values."""

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, where it was logged and finite."""
        points = [(row["step"], row[name]) for row in self.metrics if row.get(name) is not None]
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


def read_run(path: Path) -> RunRecord:
    """Raises: ConfigError when there is no run at `path`."""
    if not (path / "run.json").is_file():
        raise ConfigError(f"{path} is not a run folder (no run.json). Fix: the --out folder of a run")
    config = path / "config.toml"
    return RunRecord(
        path=path,
        info=_parsed(path / "run.json", json.loads),
        config=_parsed(config, tomllib.loads) if config.is_file() else {},
        metrics=read_lines(path / "metrics.jsonl"),
        events=read_lines(path / "events.jsonl"),
        memory=read_lines(path / "memory.jsonl"),
        evaluations=read_lines(path / "eval.jsonl"),
    )


def _parsed(path: Path, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read ({error}); wanted the file as the run wrote it") from error
