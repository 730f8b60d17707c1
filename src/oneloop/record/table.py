"""Completions as parquet: a row each, with TRL's column names where it has one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oneloop.errors import DataError
from oneloop.types import Trajectory

_COLUMNS = frozenset(
    ("step", "prompt", "completion", "reward", "advantage", "group", "sample", "length", "stop", "kept")
)


def write_rollouts(path: Path, step: int, items: Sequence[Trajectory]) -> None:
    """Columns: step, prompt, completion, one per reward part, reward, advantage, group, sample, length, stop, kept, and
    those that reward functions added, as text.

    A part that is called like one of the others becomes `rewards/<name>`, an added column `extra/<name>`. Columns have
    the same type in every file, also where all values are missing, so that a run's files can be read as one table.

    Raises: OSError; ValueError or TypeError for a value that is not what its column holds.
    """
    import pyarrow  # noqa: PLC0415  # slow to load; only runs that write need it
    from pyarrow import parquet  # noqa: PLC0415

    def numbers(values: Sequence[float | None]) -> Any:
        return pyarrow.array([None if value is None else float(value) for value in values], pyarrow.float64())

    def words(values: Sequence[str | None]) -> Any:
        # parquet holds valid Unicode only; a lone surrogate comes from a broken token
        valid = [None if value is None else value.encode("utf-8", "backslashreplace").decode() for value in values]
        return pyarrow.array(valid, pyarrow.string())

    parts = list(dict.fromkeys(name for item in items for name in item.reward.parts))
    columns: dict[str, Any] = {
        "step": [step] * len(items),
        "prompt": words([item.prompt.text for item in items]),
        "completion": words([item.text for item in items]),
        **{_column(name): numbers([item.reward.parts.get(name) for item in items]) for name in parts},
        "reward": numbers([item.reward.value for item in items]),
        "advantage": numbers([item.advantage for item in items]),
        "group": [item.group for item in items],
        "sample": [item.sample for item in items],
        "length": [len(item.completion.tokens) for item in items],
        "stop": words([str(item.completion.stop) for item in items]),
        "kept": [item.kept for item in items],
    }
    for name in dict.fromkeys(name for item in items for name in item.reward.extras):
        texts = words([item.reward.extras.get(name) for item in items])
        columns[f"extra/{name}" if name in columns else name] = texts
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        parquet.write_table(pyarrow.table(columns), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """The rows of one step.

    Raises: DataError when the file cannot be read.
    """
    import pyarrow  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    try:
        return parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}). Fix: rm {path}; nothing but the page needs it") from error


def _column(part: str) -> str:
    return f"rewards/{part}" if part in _COLUMNS else part
