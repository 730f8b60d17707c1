"""An evaluation that fails ends a run when the step that it came after is recorded and saved, not amid it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oneloop.errors import OneloopError, Stopped
from oneloop.together import everywhere


class Held:
    """A failure of a measure, until the step is saved. Hook, after those that record.

    Args:
        save: hook that saves; raises Stopped where the run was asked to end.
        alone: no rank waits for this one, so that whatever was raised can wait; else what is raised on every rank can.
    """

    def __init__(self, save: Callable[[int, Any], None], alone: bool) -> None:
        self._save, self._alone = save, alone
        self._failure: Exception | None = None

    def measure(self, measure: Callable[[int], Mapping[str, float]], step: int) -> Mapping[str, float]:
        try:
            return measure(step)
        except Stopped:
            raise
        except Exception as error:
            if not (self._alone or isinstance(error, OneloopError) or everywhere(error)):
                raise
            error.add_note(f"the evaluation after {step + 1} steps has no result; the steps are complete without it")
            self._failure = error
            return {}

    def __call__(self, step: int, algorithm: Any) -> None:
        failure = self._failure
        try:
            self._save(step, algorithm)
        except Exception as error:  # a signal, or a disk: neither hides it
            if failure is not None:
                for line in (f"{type(failure).__name__}: {failure}", *failure.__notes__):
                    error.add_note(line)
            raise
        if failure is not None:
            raise failure
