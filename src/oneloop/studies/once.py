"""What a study hands to the loop besides models: rows kept in memory, and experience that is gone with the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oneloop.batch import Batch
from oneloop.ports import Report


class Once:
    """Base of `oneloop.ports.Experience` that tells the mean reward, and of which nothing is saved."""

    def report(self, batch: Batch) -> Report:
        return Report({"reward": float(batch.rewards.sum() / len(batch))}, ())

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError("a study is not resumed")


class Kept:
    """Implements `oneloop.ports.Recorder`: a row a step."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, float]] = []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append(values)

    def trajectories(self, step: int, items: Any) -> None:
        """There are none."""

    def event(self, step: int, code: str, text: str, fix: str = "") -> None:
        raise RuntimeError(f"step {step}: {code}: {text}")  # nothing of a study may go wrong unnoticed
