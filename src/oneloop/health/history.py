"""What the checks remember of the steps before: few numbers, all of them in metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import fmean, median
from typing import Any

Row = Mapping[str, float]
KEPT = 20
"""Recent steps that are remembered."""


@dataclass(frozen=True)
class Evaluation:
    """A held-out measurement, and how training stood then."""

    step: int
    measured: Row
    trained: Row
    """Means over the recent steps: `reward`, `loss`."""


@dataclass(frozen=True)
class History:
    """The first steps, the recent ones, and the evaluations that count. Only finite values are kept."""

    first: tuple[Row, ...] = ()
    recent: tuple[Row, ...] = ()
    """The newest last; the step that is looked at is among them."""
    ended: bool = False
    """Whether a completion ever ended by itself."""
    best: Mapping[str, Evaluation] = field(default_factory=dict)
    """By metric: the best evaluation so far."""
    latest: tuple[Evaluation, ...] = ()
    """The last two evaluations."""

    def after(self, step: int, values: Mapping[str, Any], window: int) -> History:
        """The history with one more step."""
        row = {name: float(value) for name, value in values.items() if value is not None and isfinite(value)}
        new = replace(
            self,
            first=self.first if len(self.first) >= window else (*self.first, row),
            recent=(*self.recent, row)[-KEPT:],
            ended=self.ended or row.get("completions/clipped_ratio", 1.0) < 1.0,
        )
        if "eval/reward" not in row and "eval/loss" not in row:
            return new
        means = {name: fmean(found) for name in ("reward", "loss") if (found := new.values(name)[-window:])}
        evaluation = Evaluation(step, row, means)
        best = {name: evaluation for name, better in _BETTER.items() if _is_best(name, better, row, self.best)}
        return replace(new, best={**self.best, **best}, latest=(*self.latest, evaluation)[-2:])

    @property
    def now(self) -> Row:
        return self.recent[-1]

    def values(self, name: str) -> list[float]:
        """Of the recent steps, the newest last."""
        return [row[name] for row in self.recent if name in row]

    def at_first(self, name: str) -> float | None:
        """Median of the first steps."""
        return _median([row[name] for row in self.first if name in row])

    def lately(self, name: str, window: int) -> float | None:
        """Median of the newest steps; None while the first ones are still among them."""
        found = self.values(name)
        return _median(found[-window:]) if len(found) >= 2 * window else None


_BETTER = {"eval/reward": 1.0, "eval/loss": -1.0}


def _is_best(name: str, better: float, row: Row, best: Mapping[str, Evaluation]) -> bool:
    return name in row and (name not in best or better * row[name] > better * best[name].measured[name])


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
