"""What Python hands to a run where a command has only words: a changed algorithm, a loaded model, rows, functions.

The run's settings hold a description of each (`python:...`), which config.toml records and resume compares; what a
description alone cannot bring back is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oneloop.config import MARK, Run
from oneloop.data import Table, content
from oneloop.errors import ConfigError
from oneloop.record.atomic import new_folder

START = "start"
"""Folder of a run with the model that was handed over, as it was before the first step."""


@dataclass(frozen=True)
class Given:
    """Each is None (or empty) where the run's own words say it."""

    algorithm: Any = None
    """An `oneloop.algorithms.Algorithm`. It, the model and the tokenizer are named by no type here: this file must be
    loaded before torch is."""
    model: Any = None
    tokenizer: Any = None
    rows: Table | None = None
    eval_rows: Table | None = None
    environment: Any = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Reward functions by their description."""

    def check(self, run: Run) -> None:
        """Raises: ConfigError for a setting that only Python could give, and did not."""
        there = {"model": self.model, "data": self.rows, "eval_data": self.eval_rows, "environment": self.environment}
        missing = [name for name, value in there.items() if getattr(run, name).startswith(MARK) and value is None]
        missing += [
            name
            for name in ("reward", "eval_reward")
            if any(word.startswith(MARK) and word not in self.functions for word in getattr(run, name))
        ]
        if missing:
            raise ConfigError(
                f"{missing[0]} = {getattr(run, missing[0])!r} was handed over in Python, and these words cannot bring "
                f"it back. Fix: oneloop.fit(..., {missing[0]}=the same, resume=True)"
            )

    def placed(self, run: Run, folder: Path) -> Run:
        """The run with a handed-over model as a folder, from which everything that needs it loads it.

        The policy, its reference, a separate critic, a resumed run and whoever loads the adapters all start from the
        same weights so, and the model that was handed over stays as it was.
        """
        if self.model is None or self.tokenizer is None:
            return run
        start = folder / START
        if not start.is_dir():
            from oneloop.model.save import save_policy  # noqa: PLC0415  # torch

            with new_folder(start) as temporary:
                save_policy(temporary, self.model, self.tokenizer)
        return replace(run, model=str(start))


NOTHING = Given()


def rows_words(rows: Table) -> str:
    return f"{MARK}{len(rows)} rows, sha256 {content(rows)[:16]}"


def function_words(function: Any) -> str:
    """Where a function or a class was defined; of an object, its class."""
    inner = getattr(function, "func", function)  # functools.partial
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{MARK}{named.__module__}.{named.__qualname__}"


def function_name(function: Any) -> str:
    """The name under which its values are logged."""
    inner = getattr(function, "func", function)
    return getattr(inner, "__name__", type(inner).__name__)
