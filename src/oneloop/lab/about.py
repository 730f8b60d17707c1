"""What a report says of a run beside the answers of the other routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from oneloop.errors import OneloopError
from oneloop.lab.answers import Refusal
from oneloop.lab.curves import CURVES, MORE
from oneloop.lab.series import WAIT, read
from oneloop.lab.source import Source

STEPS_SHOWN, ROWS_SHOWN = 6, 16
"""Steps, evenly spread over the run, whose completions are shown; completions of each."""


def labels() -> dict[str, dict[str, str]]:
    """Metrics and their words: those of the first look, and those folded away."""
    return {"curves": CURVES, "more": MORE}


def about(source: Source, key: str, name: str, metrics: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Of one run: how long it took, which steps' completions are shown, and what of it cannot be.

    Args:
        metrics: lines of metrics.jsonl, to count the values that were not finite.
    """
    return {
        "id": key,
        "name": name,
        "minutes": _minutes(source),
        "missing": _missing(metrics),
        "samples": [_sample(source, step) for step in spread(_steps(source), STEPS_SHOWN)],
    }


def _minutes(source: Source) -> float | None:
    """Of a clock that nobody sets and that pauses have no part in; of older runs, by the clock on the wall."""
    read(source, WAIT)
    columns = source.index().columns
    steps, times = columns.get("time/step"), columns.get("time")
    if steps is not None and len(steps):
        return float(sum(value for value in steps if isfinite(value))) / 60
    return None if times is None or not len(times) else max(float(times[-1] - times[0]), 0.0) / 60


def _missing(metrics: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in metrics:
        for name in (name for name, value in row.items() if value is None):
            counts[name] = counts.get(name, 0) + 1
    return counts


def _steps(source: Source) -> list[int]:
    try:
        return source.steps("rollouts")
    except (OSError, OneloopError):
        return []


def _sample(source: Source, step: int) -> dict[str, Any]:
    """How many completions a step has, and how many without a reward; or why it cannot be read."""
    try:
        rewards = source.table("rollouts", step, ["reward"]).column("reward")
    except (OSError, OneloopError, KeyError, Refusal) as error:
        return {"step": step, "count": 0, "unscored": 0, "error": str(error)}
    return {"step": step, "count": len(rewards), "unscored": rewards.null_count, "error": None}


def spread(steps: Sequence[int], count: int) -> list[int]:
    """At most so many of the steps, the first and the last among them, evenly spread.

    >>> spread(range(100), 4), spread([3, 5], 4)
    ([0, 33, 66, 99], [3, 5])
    """
    if len(steps) <= count:
        return list(steps)
    return [steps[place * (len(steps) - 1) // (count - 1)] for place in range(count)]
