"""The route about memory: what was planned beside what was measured."""

from __future__ import annotations

import json
from typing import Any

import numpy

from oneloop.lab.columns import Columns, Index
from oneloop.lab.downsample import kept
from oneloop.lab.own import OwnRun
from oneloop.lab.source import Source

POINTS = 1000


def memory(source: Source, index: Index, wait: float) -> dict[str, Any]:
    """Bytes by step, few of many with every peak kept."""
    measured: list[dict[str, Any]] = []
    if isinstance(source, OwnRun):
        try:
            index.refresh(wait)
            measured = index.chart("memory", _rows)
        except FileNotFoundError:
            measured = []
    return {"plan": _plan(source), "measured": measured}


def _rows(columns: Columns) -> list[dict[str, Any]]:
    names = [name for name in columns.names() if name != "time"]
    held = {name: found for name in names if (found := columns.get(name)) is not None}
    share = max(POINTS // max(len(held), 1), 4)
    places: set[int] = set(range(columns.rows)) if columns.rows <= POINTS else set()
    if not places:
        for column in held.values():
            there = numpy.flatnonzero(numpy.isfinite(column))
            places |= set(there[kept(column[there], share)].tolist())
    rows = sorted(places)
    return [{name: int(column[row]) for name, column in held.items() if numpy.isfinite(column[row])} for row in rows]


def _plan(source: Source) -> Any:
    try:
        return json.loads(source.folder.read("plan.json", most=2**20))
    except (OSError, ValueError, RecursionError):
        return None
