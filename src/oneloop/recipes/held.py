"""An evaluation that fails ends a run when the step that it came after is recorded and saved, not amid it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from oneloop.errors import OneloopError, Stopped


class Held:
    """A failure of a measure, for a while.

    Args:
        alone: no rank waits for this one, so that whatever was raised can wait; else what is raised on every rank can.
    """

    def __init__(self, alone: bool) -> None:
        self._kinds = Exception if alone else OneloopError
        self._failure: Exception | None = None

    def measure(self, measure: Callable[[int], Mapping[str, float]], step: int) -> Mapping[str, float]:
        try:
            return measure(step)
        except Stopped:
            raise
        except self._kinds as error:
            error.add_note(f"the evaluation after {step + 1} steps has no result; the steps are complete without it")
            self._failure = error
            return {}

    def __call__(self, step: int, algorithm: object) -> None:
        """Hook, after those that record and save."""
        if self._failure is not None:
            raise self._failure
