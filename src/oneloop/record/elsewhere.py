"""The run folder of a process that has none: of several ranks, the first one writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneloop.record.writer import HELD_OUT, RunFolder
from oneloop.types import Trajectory

if TYPE_CHECKING:  # slow to load
    import pyarrow


class Elsewhere(RunFolder):
    """Takes whatever a `RunFolder` takes and writes nothing, so that every rank goes through the same lines."""

    keeps = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.evaluated: tuple[int, dict[str, float]] | None = None

    @property
    def checkpoint(self) -> int:
        return 0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if measured := {name: value for name, value in values.items() if name.startswith(HELD_OUT)}:
            self.evaluation(step + 1, measured)

    def evaluation(self, done: int, values: Mapping[str, float]) -> None:
        self.evaluated = (done, dict(values))

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None: ...

    def traced(self, step: int, tables: Mapping[str, pyarrow.Table], ratios: Mapping[str, Any] | None) -> None: ...

    def skipped(self, step: int, name: str, text: str) -> None: ...

    def event(self, step: int, code: str, text: str, fix: str = "") -> None: ...

    def memory(self, step: int, values: Mapping[str, int]) -> None: ...

    def position(self) -> dict[str, int]:
        return {}

    def rewind(self, position: Mapping[str, int], step: int, *, accept_loss: bool = False) -> list[str]:
        return []

    def fingerprint(self) -> None: ...

    def check_there(self) -> None: ...

    def check_whole(self) -> None: ...

    def saved(self, done: int) -> None: ...

    def spent_saving(self, seconds: float) -> None: ...

    def finish(self, status: str, failure: str | None = None, exit_code: int | None = None) -> None: ...

    def close(self) -> None: ...
