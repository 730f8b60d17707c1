"""Completions as parquet: a row each, with TRL's column names where it has one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oneloop.types import Trajectory

if TYPE_CHECKING:  # slow to load
    import pyarrow

_COLUMNS = frozenset((
    "step", "prompt", "completion", "reward", "advantage", "group", "sample", "length", "stop", "kept", "version",
    "changes", "turns",
))  # fmt: skip


def rollout_table(step: int, items: Sequence[Trajectory]) -> pyarrow.Table:
    """Columns: step, prompt, completion, one per reward part, reward, advantage, group, sample, length, stop, kept,
    version, changes, and those that reward functions added, as text.

    `version`: updates of the weights that the first token was drawn from. `changes`: where newer ones came on the way,
    "17:4" for version 4 from token 17 on (counted from 0), with spaces between; "" for none. `turns`: of episodes in an
    environment, a JSON list of what was said behind the prompt, each with role, text and, of the policy's, reward.

    A part that is called like one of the others becomes `rewards/<name>`, an added column `extra/<name>`. Columns have
    the same type in every file, also where all values are missing, so that a run's files can be read as one table.

    Raises: ValueError or TypeError for a value that is not what its column holds.
    """
    import pyarrow  # noqa: PLC0415  # slow to load; only runs that write need it

    def numbers(values: Sequence[float | None]) -> Any:
        return pyarrow.array([None if value is None else float(value) for value in values], pyarrow.float64())

    def words(values: Sequence[str | None]) -> Any:
        # parquet holds valid Unicode only; a lone surrogate comes from a broken token
        valid = [None if value is None else value.encode("utf-8", "backslashreplace").decode() for value in values]
        return pyarrow.array(valid, pyarrow.string())

    parts = list(dict.fromkeys(name for item in items for name in item.reward.parts))
    columns: dict[str, Any] = {
        "step": pyarrow.array([step] * len(items), pyarrow.int32()),
        "prompt": words([item.prompt.text for item in items]),
        "completion": words([item.text for item in items]),
        **{_column(name): numbers([item.reward.parts.get(name) for item in items]) for name in parts},
        "reward": numbers([item.reward.value for item in items]),
        "advantage": numbers([item.advantage for item in items]),
        "group": [item.group for item in items],
        "sample": [item.sample for item in items],
        "length": [len(item.completion.actions) for item in items],
        "stop": words([str(item.completion.stop) for item in items]),
        "kept": [item.kept for item in items],
        "version": pyarrow.array([item.completion.version for item in items], pyarrow.int32()),
        "changes": words([" ".join(f"{p}:{v}" for p, v in item.completion.changes) for item in items]),
    }
    if any(item.turns for item in items):
        columns["turns"] = words([_turns(item) for item in items])
    for name in dict.fromkeys(name for item in items for name in item.reward.extras):
        texts = words([item.reward.extras.get(name) for item in items])
        columns[f"extra/{name}" if name in columns else name] = texts
    return pyarrow.table(columns)


def _turns(item: Trajectory) -> str:
    """As JSON: a list of role, text and, of the policy's turns that were answered, reward."""
    said = ({"role": turn.role, "text": turn.text, "reward": turn.reward} for turn in item.turns)
    return json.dumps([{name: value for name, value in turn.items() if value is not None} for turn in said])


def _column(part: str) -> str:
    return f"rewards/{part}" if part in _COLUMNS else part
