"""Rows of many tests, graded in one call: each takes a process or two."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from oneloop.rewards.code import UnitTests


@dataclass(frozen=True)
class Row:
    """A program, the tests that it is to meet, and what it earns."""

    name: str
    program: str
    tests: Any
    value: float | None
    share: float | None = None
    """What it earns of `unit_tests_share`, where that is another value."""
    entry_point: str | None = None

    @property
    def of_share(self) -> float | None:
        return self.value if self.share is None else self.share


class Graded:
    """The values of some rows, by name."""

    def __init__(self, rows: tuple[Row, ...], reward: UnitTests = UnitTests(seconds=2)) -> None:  # noqa: B008
        self.rows, self._reward = rows, reward
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)

    @cache  # noqa: B019  # as long as the module
    def of(self, share: bool) -> dict[str, float | None]:
        values = replace(self._reward, share=share)(
            completions=[row.program for row in self.rows],
            tests=[row.tests for row in self.rows],
            entry_point=[row.entry_point for row in self.rows],
        )
        return {row.name: value for row, value in zip(self.rows, values, strict=True)}
