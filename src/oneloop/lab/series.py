"""Routes about metrics: charts of few points, and lines as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from oneloop.lab.answers import Refusal
from oneloop.lab.columns import Columns
from oneloop.lab.downsample import kept
from oneloop.lab.source import Source

Axis = Literal["step", "tokens", "time"]
AXES: dict[str, str] = {"step": "step", "tokens": "num_tokens", "time": "time"}
"""The column of each axis."""
WAIT = 0.5
"""Seconds that a chart waits for the rest of the file."""
NAMES = 40
"""Series of one answer."""


def curves(
    source: Source, names: Sequence[str], points: int, axis: str, low: float | None, high: float | None
) -> dict[str, Any]:
    """Series of at most so many points each; `low` and `high` bound the axis."""
    if axis not in AXES:
        raise Refusal(400, f"x={axis[:40]!r} is no axis; there are {', '.join(AXES)}", "x=step")
    if len(names) > NAMES:
        raise Refusal(
            400, f"{len(names)} names; at most {NAMES} at once", "&".join(f"names={name}" for name in names[:3])
        )
    index = source.index()
    read(source, WAIT)
    key = (tuple(names), points, axis, low, high)
    series = index.chart(
        key,
        lambda columns: [
            _series(columns, name, points, _along(columns, axis, each=source.kind == "oneloop"), low, high)
            for name in names
        ],
    )
    return {"offset": index.offset, "x": axis, "ready": index.ready, "series": [one for one in series if one]}


def read(source: Source, wait: float) -> None:
    """Bring the columns up to date. A run that has logged nothing yet has no series, and that is an answer."""
    try:
        source.index().refresh(wait)
    except FileNotFoundError:
        if not source.folder.exists():
            raise Refusal(410, "the run's folder is not there any more", "look at the list of runs") from None


def _along(columns: Columns, axis: str, *, each: bool) -> NDArray[numpy.floating] | None:
    """The values of an axis. Tokens count from the run's start; `each`: it logs those of every step, not their sum."""
    along = columns.get(AXES[axis])
    if axis != "tokens" or not each or along is None:
        return along
    return numpy.cumsum(numpy.nan_to_num(along), dtype=numpy.float64)


def _series(
    columns: Columns,
    name: str,
    points: int,
    along: NDArray[numpy.floating] | None,
    low: float | None,
    high: float | None,
) -> dict[str, Any] | None:
    values = columns.get(name)
    if values is None or along is None:
        return None
    there = numpy.isfinite(values) & numpy.isfinite(along)
    if low is not None:
        there &= along >= low
    if high is not None:
        there &= along <= high
    rows = numpy.flatnonzero(there)
    chosen = rows[kept(values[rows], points)]
    middle, spread = values[chosen].astype(float), _spread(columns, name)
    band = None if spread is None else spread[chosen].astype(float)
    return {
        "name": name,
        "x": _whole(along[chosen]),
        "y": middle.tolist(),
        "low": None if band is None else (middle - band).tolist(),
        "high": None if band is None else (middle + band).tolist(),
        "n": len(rows),
    }


def _spread(columns: Columns, name: str) -> Any:
    """The standard deviation that was logged beside a mean."""
    other = f"{name.removesuffix('/mean')}/std" if name.endswith("/mean") else f"{name}_std"
    return columns.get(other)


def _whole(values: NDArray[numpy.floating]) -> list[float]:
    """Steps as whole numbers, which are shorter to send."""
    return [int(value) if value == int(value) else value for value in values.tolist()]
