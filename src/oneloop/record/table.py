"""Completions as parquet: a row each, with TRL's column names where it has one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from oneloop.types import StopReason, Trajectory, Turn

if TYPE_CHECKING:  # slow to load
    import pyarrow

_COLUMNS = frozenset((
    "step", "prompt", "completion", "reward", "advantage", "group", "sample", "length", "stop", "kept", "version",
    "changes", "turns", "error",
))  # fmt: skip


def rollout_table(step: int, items: Sequence[Trajectory]) -> pyarrow.Table:
    """Columns: step, prompt, completion, one per reward part, reward, advantage, group, sample, length, stop, kept,
    version, changes, and those that reward functions added, as text.

    `version`: updates of the weights that the first token was drawn from. `changes`: where newer ones came on the way,
    "17:4" for version 4 from token 17 on (counted from 0), with spaces between; "" for none. Of episodes in an
    environment there are also `turns`, as `_turns` says, and `error`: why the environment failed.

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
    if any(item.turns or item.completion.stop is StopReason.ERROR for item in items):
        columns["turns"] = words([_turns(item) for item in items])
        columns["error"] = words([_error(item) for item in items])
    for name in dict.fromkeys(name for item in items for name in item.reward.extras):
        texts = words([item.reward.extras.get(name) for item in items])
        columns[f"extra/{name}" if name in columns else name] = texts
    return pyarrow.table(columns)


def _error(item: Trajectory) -> str | None:
    """Functions that failed to judge an episode that ended well are told as alerts, as without an environment."""
    failed = item.completion.stop is StopReason.ERROR
    return "; ".join(item.reward.failures.values()) or None if failed else None


def _turns(item: Trajectory) -> str:
    """As JSON: a list of what was said behind the prompt, each with

    role, text; ids: its tokens, the end of a turn and what the template writes round a message included. Those of all
    turns, one behind the other, are the completion's. Messages that are read together have theirs at the first of
    them; what nobody reads, because the episode is over, has none
    chosen: true for the policy's turns; all others are masked, and never trained on
    reward, advantage (mean over its tokens), terminated, truncated, calls (name, arguments, answer): of the policy's
    turns, where there is one
    """
    return json.dumps([_turn(turn, item.completion.tokens) for turn in item.turns])


def _turn(turn: Turn, tokens: Sequence[int]) -> dict[str, Any]:
    said = {
        "role": turn.role,
        "text": turn.text,
        "chosen": turn.chosen or None,
        "ids": None if turn.span is None else tokens[slice(*turn.span)],
        "reward": turn.reward,
        "advantage": turn.advantage,
        "terminated": turn.terminated or None,
        "truncated": turn.truncated or None,
        "calls": [asdict(call) for call in turn.calls] or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _column(part: str) -> str:
    return f"rewards/{part}" if part in _COLUMNS else part
