"""The rows that a run trains on and those it is held against."""

from __future__ import annotations

from dataclasses import replace

from oneloop.config import Run
from oneloop.data import Kind, Loaded, Reading, open_data
from oneloop.data.loaded import loaded
from oneloop.errors import ConfigError
from oneloop.recipes.given import NOTHING, Given
from oneloop.tasks.named import is_task


def reading_of(run: Run) -> Reading:
    return Reading(columns=run.columns, split=run.split, on_bad_row=run.on_bad_row, method=run.algorithm)


def read_rows(run: Run, kind: Kind, given: Given = NOTHING) -> tuple[Loaded, Loaded | None]:
    """Training and held-out rows; of a task the test split, of any source what `--eval-split` takes from it.

    Raises: ConfigError for two sources of held-out rows; DataError naming file, row and column.
    """
    reading, task = reading_of(run), is_task(run.data)
    if run.eval_split and (run.eval_data or task):
        other = f"--eval-data {run.eval_data}" if run.eval_data else f"--data {run.data}, which has its own test split"
        raise ConfigError(f"--eval-split {run.eval_split} beside {other}. Fix: one of the two")
    shared = run.eval_split.strip()[:1].isdigit()
    if given.rows is not None:
        data = loaded(given.rows, "data", kind, reading, prompts=shared)
    else:
        data = open_data(run.data, kind, reading=reading, size=run.data_size, seed=run.seed, prompts=shared)
    if shared:
        return data.divided(run.eval_split, run.seed)
    return data, _held_out(run, kind, reading, given)


def _held_out(run: Run, kind: Kind, reading: Reading, given: Given) -> Loaded | None:
    if given.eval_rows is not None:
        return loaded(given.eval_rows, "eval_data", kind, replace(reading, split=""))
    if run.eval_split and given.rows is None:
        return open_data(run.data, kind, reading=replace(reading, split=run.eval_split))
    if run.eval_split:
        raise ConfigError(f"eval_split = {run.eval_split!r}: rows from Python have no splits. Fix: 5%, or eval_data")
    source = run.eval_data or (run.data if is_task(run.data) else "")
    if not source:
        return None
    held = replace(reading, split="")
    return open_data(source, kind, reading=held, part="test", size=run.eval_size, seed=run.seed)
