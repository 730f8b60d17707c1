"""What a study is: claims, what is measured to test them, and how the measurement is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any, Literal, NamedTuple

from oneloop.record.statistics import Interval, student_interval

Scale = Literal["linear", "log", "symlog"]


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold here"
    OPEN = "cannot be told"


class Judged(NamedTuple):
    verdict: Verdict
    because: str
    """The numbers that it was computed from, in words."""


@dataclass(frozen=True)
class Point:
    """One quantity under one condition, measured once a seed, in the order of the seeds."""

    series: str
    x: float | str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def interval(self) -> Interval:
        """95 %, over seeds (Student's t)."""
        return student_interval(self.values)


@dataclass(frozen=True)
class Panel:
    """One quantity over one axis: a picture and a table."""

    quantity: str
    """With its unit."""
    axis: str
    points: tuple[Point, ...]
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"

    def at(self, series: str, x: float | str) -> Point:
        """Raises: KeyError where it was not measured."""
        for point in self.points:
            if point.series == series and point.x == x:
                return point
        raise KeyError(f"{self.quantity}: nothing was measured of {series!r} at {x!r}")

    @property
    def series(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.series for point in self.points))

    def of(self, series: str) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.series == series)


Table = Mapping[str, Panel]


@dataclass(frozen=True)
class Claim:
    text: str
    source: str
    """Who says so."""
    judge: Callable[[Table], Judged]


@dataclass(frozen=True)
class Study:
    """Claims, and the one measurement that tests them.

    Args:
        setting: what is measured and how, in sentences.
        run: called with the seeds, and whether it must be quick; same seeds, same table.
        told: what else the numbers say, from the table.
    """

    name: str
    title: str
    setting: str
    claims: tuple[Claim, ...]
    run: Callable[[Sequence[int], bool], Table]
    seeds: tuple[int, ...] = tuple(range(10))
    quick_seeds: tuple[int, ...] = tuple(range(5))
    told: Callable[[Table], str] = lambda table: ""


@dataclass(frozen=True)
class Result:
    """What one run of a study measured, and where."""

    study: str
    quick: bool
    seeds: tuple[int, ...]
    date: str
    machine: Mapping[str, Any]
    seconds: float
    table: Table

    def to_json(self) -> dict[str, Any]:
        panels = {
            key: {
                "quantity": panel.quantity, "axis": panel.axis, "x_scale": panel.x_scale, "y_scale": panel.y_scale,
                "points": [{"series": p.series, "x": p.x, "values": list(p.values)} for p in panel.points],
            }
            for key, panel in self.table.items()
        }  # fmt: skip
        return {
            "study": self.study, "quick": self.quick, "seeds": list(self.seeds), "date": self.date,
            "machine": dict(self.machine), "seconds": self.seconds, "panels": panels,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Result:
        table = {
            key: Panel(
                panel["quantity"], panel["axis"],
                tuple(Point(p["series"], p["x"], tuple(p["values"])) for p in panel["points"]),
                panel["x_scale"], panel["y_scale"],
            )
            for key, panel in values["panels"].items()
        }  # fmt: skip
        return cls(
            values["study"], values["quick"], tuple(values["seeds"]), values["date"], values["machine"],
            values["seconds"], table,
        )  # fmt: skip
