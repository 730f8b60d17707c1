"""All checks after each step, and which of their alerts are worth saying."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from oneloop.health.checks import CHECKS, Alert, Look, Setting, still
from oneloop.health.history import History
from oneloop.health.limits import Limits
from oneloop.health.region import REGION

SILENCES = {"A_FLAT": "A_DEAD"}
"""An alert, and the other that would say the same of the step."""


class Watch:
    """Called with every step's scalars; returns the alerts to record.

    The state is a function of the steps so far, so a resumed run rebuilds it from metrics.jsonl with `replay`.
    """

    def __init__(self, setting: Setting, limits: Limits = Limits()) -> None:  # noqa: B008
        self._setting, self._limits = setting, limits
        self._history = History()
        self._said: dict[str, tuple[int, float]] = {}

    def __call__(self, step: int, values: Mapping[str, Any]) -> list[Alert]:
        self._history = self._history.after(step, values, self._limits.window)
        look = Look(self._history, self._setting, self._limits)
        found = [alert for check in (*CHECKS, *REGION) if (alert := check(look)) is not None]
        if not any(alert.code.startswith("A_") for alert in found) and (alert := still(look)) is not None:
            found.append(alert)
        hidden = {SILENCES.get(alert.code) for alert in found}
        return [alert for alert in found if alert.code not in hidden and self._worth_saying(step, alert)]

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in the steps that were watched already, as metrics.jsonl has them."""
        for row in rows:
            self(row["step"], {name: value for name, value in row.items() if name not in ("step", "time")})

    def _worth_saying(self, step: int, alert: Alert) -> bool:
        """New, or long ago, or twice as bad as when it was last said. What only informs is said once."""
        if alert.code in self._said:
            last, size = self._said[alert.code]
            recent = alert.code.startswith("I_") or step - last < self._limits.quiet
            if recent and not (size > 0 and alert.size >= 2 * size):
                return False
        self._said[alert.code] = (step, alert.size)
        return True
