"""What a built-in task provides, and how its rows are drawn."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any, Literal, Protocol, runtime_checkable

from oneloop.errors import ConfigError

Split = Literal["train", "test"]
Row = dict[str, Any]
_PATIENCE = 10_000
"""Draws in a row from the other split before this one counts as empty; by chance that happens once in 10^900."""


@runtime_checkable
class Task(Protocol):
    """Rows come from a seed; the prompts of the two splits never meet."""

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        """Rows with `prompt`, `answer` and whatever else the reward reads."""
        ...

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        """The same with `completion`."""
        ...

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        """The same with `chosen` and `rejected`, which is graded 0."""
        ...

    @property
    def reward(self) -> Callable[..., list[float | None]]:
        """1 for a verified answer, else 0; called as a reward function is, with completions and columns."""
        ...


def unpaired(task: Task, count: int, seed: int, split: Split) -> list[Row]:
    """Rows with `prompt`, `completion`, `label` and the other columns: one answer of each preference, good and bad ones
    in turn."""
    rows = []
    for number, row in enumerate(task.preferences(count, seed, split)):
        good = number % 2 == 0
        answer = row["chosen" if good else "rejected"]
        others = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
        rows.append(others | {"completion": answer, "label": good})
    return rows


def in_test(prompt: str) -> bool:
    """A fifth of all prompts, chosen by their own text, is never trained on."""
    return blake2b(prompt.encode(), digest_size=1).digest()[0] % 5 == 0


def graded(text: str | None, wanted: Any) -> float | None:
    """1 where the text is the answer. Data files hold answers as numbers too; a row without one cannot be scored."""
    return None if wanted is None else float(text == str(wanted).strip())


def draw_rows(make: Callable[[Random], Row], count: int, seed: int, split: Split) -> list[Row]:
    """`count` rows of a split, distinct prompts as long as new ones turn up.

    Raises: ConfigError when the task is so small that the split has no prompt at all.
    """
    rng = Random(f"{seed}-{split}")
    rows: list[Row] = []
    seen: set[str] = set()
    misses = elsewhere = 0
    while len(rows) < count:
        row = make(rng)
        if in_test(row["prompt"]) != (split == "test"):
            elsewhere += 1
            if elsewhere > _PATIENCE:
                raise ConfigError(f"no {split} prompt in {elsewhere} draws. Fix: a task with more different prompts")
            continue
        elsewhere = 0
        if row["prompt"] in seen and misses < 20 * count:
            misses += 1
            continue
        seen.add(row["prompt"])
        rows.append(row)
    return rows
