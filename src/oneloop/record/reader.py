"""A run's folder as others see it, also while it is written."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneloop.errors import ConfigError
from oneloop.record.table import read_rollouts


@dataclass(frozen=True)
class RunRecord:
    """What a run folder holds."""

    path: Path
    info: dict[str, Any]
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    events: list[dict[str, Any]]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, where it was logged and finite."""
        points = [(row["step"], row[name]) for row in self.metrics if row.get(name) is not None]
        return [step for step, _ in points], [float(value) for _, value in points]

    def rollout_steps(self) -> list[int]:
        return sorted(int(file.stem.removeprefix("step_")) for file in (self.path / "rollouts").glob("step_*.parquet"))

    def rollouts(self, step: int) -> list[dict[str, Any]]:
        """One row per completion of a step."""
        return read_rollouts(self.path / "rollouts" / f"step_{step:06d}.parquet")


def read_run(path: Path) -> RunRecord:
    """Raises: ConfigError when there is no run at `path`."""
    if not (path / "run.json").is_file():
        raise ConfigError(f"{path} is not a run folder (no run.json). Fix: the --out folder of a run")
    config = path / "config.toml"
    return RunRecord(
        path=path,
        info=json.loads((path / "run.json").read_text(encoding="utf-8")),
        config=tomllib.loads(config.read_text(encoding="utf-8")) if config.is_file() else {},
        metrics=_lines(path / "metrics.jsonl"),
        events=_lines(path / "events.jsonl"),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines only: the last one may be half written, or torn by a kill."""
    if not path.is_file():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]
