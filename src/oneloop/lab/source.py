"""What the pages need of a run, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow

from oneloop.lab.columns import Index
from oneloop.lab.folders import Folder
from oneloop.lab.lines import Page
from oneloop.lab.status import Status

Table = Literal["rollouts", "ratios", "tokens", "pairs"]
TABLES: tuple[Table, ...] = ("rollouts", "ratios", "tokens", "pairs")
Appended = Literal["metrics", "events", "evaluations", "memory", "ratios"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A run in a list of runs; what is not known is None."""

    status: Status
    algorithm: str | None = None
    model: str | None = None
    seed: int | None = None
    steps_done: int = 0
    steps_total: int | None = None
    started: float | None = None
    heartbeat: float | None = None
    alerts: int = 0
    spark: Sequence[float | None] = ()
    spark_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a run was asked to do."""

    info: dict[str, Any] = field(default_factory=dict)
    config: Sequence[dict[str, Any]] = ()
    """Settings: `name`, `value`, `default`, `changed`."""
    objective: str | None = None
    lacks: Sequence[str] = ()
    """Sentences: what the pages cannot show of this run, and why."""
    explain: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """One run on disk. Nothing is kept of it but what would be read again; every method looks at the files.

    Raises: OSError where files are gone, DataError where they cannot be read, Refusal with words for the reader.
    """

    folder: Folder

    @property
    def kind(self) -> Literal["oneloop", "trl", "verl"]: ...

    def line(self) -> Line: ...

    def details(self) -> Details: ...

    def index(self) -> Index:
        """Its metrics by column."""
        ...

    def page(self, which: Appended, offset: int, mark: str) -> Page:
        """Lines that came after `offset`."""
        ...

    def steps(self, table: Table) -> list[int]: ...

    def table(self, table: Table, step: int, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """Raises: KeyError for a step without one."""
        ...
