"""Tasksets of verifiers as rows, for the environment of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from oneloop.errors import ConfigError
from oneloop.tasks.task import Row, Split

HELD_OUT = 5
"""One task of so many is held out, by its number: many have the same prompt, and small sets have some too."""


@dataclass(frozen=True)
class VerifiersTask:
    """One taskset.

    Args:
        spec: verifiers:ID, or verifiers:file.py:NAME.
    """

    spec: str

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        """Rows with `prompt`, for people, and `task`, the number that the environment finds the task by. In their
        order: a seed changes nothing.
        """
        from oneloop.environments.verifiers.loaded import loaded  # noqa: PLC0415  needs the package

        tasks = loaded(self.spec, "--data").tasks()
        mine = ((number, task) for number, task in tasks if (number % HELD_OUT == HELD_OUT - 1) == (split == "test"))
        rows: list[Row] = [{"prompt": _prompt(task, number), "task": number} for number, task in islice(mine, count)]
        if not rows:
            raise ConfigError(
                f"--data {self.spec}: the taskset has no {split} task, of which every fifth is one. Fix: one with more"
            )
        return rows

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        raise ConfigError(f"--data {self.spec}: a taskset has no answers to imitate")

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        raise ConfigError(f"--data {self.spec}: a taskset has no pairs of answers")

    def reward(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        raise ConfigError(f"--data {self.spec} is judged where it is played. Fix: --environment {self.spec}")


def _prompt(task: Any, number: int) -> str:
    return task.data.prompt_text or task.data.name or task.data.description or f"task {number}"
