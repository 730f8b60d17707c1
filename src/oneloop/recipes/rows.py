"""The rows that a run trains on and those it is held against."""

from __future__ import annotations

from oneloop.config import Run
from oneloop.data import Kind, Loaded, Reading, open_data
from oneloop.errors import ConfigError
from oneloop.tasks.named import is_task


def reading_of(run: Run) -> Reading:
    return Reading(columns=run.columns, split=run.split, on_bad_row=run.on_bad_row, method=run.algorithm)


def read_rows(run: Run, kind: Kind) -> tuple[Loaded, Loaded | None]:
    """Training and held-out rows; of a task the test split, of any source what `--eval-split` takes from it.

    Raises: ConfigError for two sources of held-out rows; DataError naming file, row and column.
    """
    reading, task = reading_of(run), is_task(run.data)
    if run.eval_split and (run.eval_data or task):
        other = f"--eval-data {run.eval_data}" if run.eval_data else f"--data {run.data}, which has its own test split"
        raise ConfigError(f"--eval-split {run.eval_split} beside {other}. Fix: one of the two")
    if run.eval_split and run.eval_split.strip()[:1].isdigit():
        whole = open_data(run.data, kind, reading=reading, size=run.data_size, seed=run.seed, prompts=True)
        return whole.divided(run.eval_split, run.seed)
    data = open_data(run.data, kind, reading=reading, size=run.data_size, seed=run.seed)
    if run.eval_split:
        return data, open_data(run.data, kind, reading=_of(reading, run.eval_split))
    source = run.eval_data or (run.data if task else "")
    if not source:
        return data, None
    held = open_data(source, kind, reading=_of(reading, ""), part="test", size=run.eval_size, seed=run.seed)
    return data, held


def _of(reading: Reading, split: str) -> Reading:
    return Reading(columns=reading.columns, split=split, on_bad_row=reading.on_bad_row, method=reading.method)
