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
from oneloop.record.table import read_rollouts


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

    def rollout_steps(self) -> list[int]:
        return sorted(int(file.stem.removeprefix("step_")) for file in (self.path / "rollouts").glob("step_*.parquet"))

    def rollouts(self, step: int) -> list[dict[str, Any]]:
        """One row per completion of a step.

        Raises: ConfigError for a step whose completions were not kept.
        """
        if step not in (steps := self.rollout_steps()):
            there = f"there are {len(steps)} steps from {steps[0]} to {steps[-1]}" if steps else "the run has none"
            raise ConfigError(f"{self.path} has no completions of step {step}; {there}")
        return read_rollouts(self.path / "rollouts" / f"step_{step:06d}.parquet")


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
