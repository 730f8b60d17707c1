"""Completions as parquet: a row each, with TRL's column names where it has one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oneloop.types import Trajectory


def write_rollouts(path: Path, step: int, items: Sequence[Trajectory]) -> None:
    """Columns: step, prompt, completion, one per reward part, reward, advantage, group, sample, length, stop, kept."""
    import pyarrow  # noqa: PLC0415  # slow to load; only runs that write need it
    from pyarrow import parquet  # noqa: PLC0415

    parts = list(dict.fromkeys(name for item in items for name in item.reward.parts))
    columns: dict[str, list[Any]] = {
        "step": [step] * len(items),
        "prompt": [item.prompt.text for item in items],
        "completion": [item.text for item in items],
        **{name: [item.reward.parts.get(name) for item in items] for name in parts},
        "reward": [item.reward.value for item in items],
        "advantage": [item.advantage for item in items],
        "group": [item.group for item in items],
        "sample": [item.sample for item in items],
        "length": [len(item.completion.tokens) for item in items],
        "stop": [str(item.completion.stop) for item in items],
        "kept": [item.kept for item in items],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        parquet.write_table(pyarrow.table(columns), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """The rows of one step."""
    from pyarrow import parquet  # noqa: PLC0415

    return parquet.read_table(path).to_pylist()
