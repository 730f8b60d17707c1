"""Completions of a run on its page: the telling ones first, many more folded away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oneloop.errors import DataError
from oneloop.lab.page import code, html_table, note, shown
from oneloop.record.reader import RunRecord

STEPS_FOLDED, ROWS_FOLDED = 6, 16
"""Steps, evenly spread over the run, that are folded away; completions of each."""
HEADER = ("step", "prompt", "completion", "reward", "advantage", "tokens", "stop")


def samples(name: str, record: RunRecord) -> str:
    """The best and the worst completions of the first and the last step; folded, those of steps between."""
    steps = record.rollout_steps()
    first_and_last = list(dict.fromkeys((steps[0], steps[-1])))
    rows, notes = _rows(record, first_and_last, 4)
    caption = "highest and lowest rewards of the first and the last step whose completions were kept"
    folded = "".join(_folded(record, step) for step in spread(steps, STEPS_FOLDED))
    return f"<h2>Completions of {shown(name)}</h2>{html_table(HEADER, rows, caption)}{notes}{folded}"


def spread(steps: Sequence[int], count: int) -> list[int]:
    """At most so many of the steps, the first and the last among them, evenly spread.

    >>> spread(range(100), 4), spread([3, 5], 4)
    ([0, 33, 66, 99], [3, 5])
    """
    if len(steps) <= count:
        return list(steps)
    return [steps[place * (len(steps) - 1) // (count - 1)] for place in range(count)]


def _folded(record: RunRecord, step: int) -> str:
    rows, notes = _rows(record, [step], ROWS_FOLDED)
    if not rows:
        return ""
    caption = "half of them with the highest rewards, half with the lowest"
    summary = f"<summary>step {step + 1}: {len(rows)} completions</summary>"
    return f"<details>{summary}{html_table(HEADER, rows, caption)}{notes}</details>"


def _rows(record: RunRecord, steps: Sequence[int], most: int) -> tuple[list[list[str]], str]:
    """So many completions of each step, and what cannot be shown."""
    rows: list[list[str]] = []
    notes: list[str] = []
    for step in steps:
        try:
            found = record.rollouts(step)
        except DataError as error:
            notes.append(note(str(error), "bad"))
            continue
        scored = sorted((row for row in found if row["reward"] is not None), key=lambda row: -row["reward"])
        best_and_worst = scored if len(scored) <= most else scored[: most // 2] + scored[-(most // 2) :]
        rows += [_sample(step, row) for row in best_and_worst]
        if len(scored) < len(found):
            notes.append(note(f"step {step + 1}: {len(found) - len(scored)} of {len(found)} could not be scored"))
    return rows, "".join(notes)


def _sample(step: int, row: dict[str, Any]) -> list[str]:
    advantage = "" if row["advantage"] is None else f"{row['advantage']:+.3f}"
    stop = row["stop"] if row["kept"] else f"{row['stop']}, group dropped"
    texts = [code(row["prompt"]), code(row["completion"])]
    return [str(step + 1), *texts, f"{row['reward']:.3f}", advantage, str(row["length"]), shown(stop)]
