"""What the panel of a run shows: a frozen value for each moment, and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import median
from types import MappingProxyType

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

SHOWN = (
    ("reward", "reward", "{:.3f}"),
    ("eval/reward", "eval reward", "{:.3f}"),
    ("loss", "loss", "{:.4f}"),
    ("eval/loss", "eval loss", "{:.4f}"),
    ("rewards/accuracies", "ranked right", "{:.3f}"),
    ("eval/rewards/accuracies", "eval ranked right", "{:.3f}"),
    ("kl", "KL", "{:.4f}"),
    ("entropy", "entropy", "{:.3f}"),
    ("frac_reward_zero_std", "dead groups", "{:.0%}"),
    ("completions/clipped_ratio", "truncated", "{:.0%}"),
    ("explained_variance", "explained variance", "{:.2f}"),
    ("grad_norm", "grad norm", "{:.3f}"),
    ("tokens_per_second", "tokens/s", "{:,.0f}"),
)
"""Metric, its label, its format."""
PHASES = {
    "rollout": "sampling", "score": "scoring", "prepare": "advantages", "update": "update",
    "evaluation": "evaluation", "saving": "saving",
}  # fmt: skip
"""What a run calls a part of its step, and what people read."""
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.,-=+*#"
RECENT = 20
"""Values of a trend, and steps that the time left is reckoned from."""
BAR = 10
"""Columns of the bar, at least; four times as many where there is room."""
TREND_FROM = 72
"""Columns from which a trend has room."""


@dataclass(frozen=True)
class Last:
    """A metric's newest values; they stand until there are newer ones."""

    step: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class Board:
    """All that the panel knows. Each event gives a new one, so that another thread may draw the old one.

    Args:
        since: when the step that runs now began, in seconds of a monotonic clock; None before the first.
        seconds: of the recent steps.
    """

    steps: int
    done: int = 0
    phase: str = ""
    since: float | None = None
    seconds: tuple[float, ...] = ()
    last: Mapping[str, Last] = field(default_factory=lambda: MappingProxyType({}))

    def in_phase(self, name: str, now: float, note: str = "") -> Board:
        """The run has begun with this part of a step, or is as far with it as `note` says."""
        phase = " ".join(filter(None, (PHASES.get(name, name), note)))
        return replace(self, phase=phase, since=now if self.since is None else self.since)

    def after(self, step: int, values: Mapping[str, float], now: float) -> Board:
        """A step is done. The first has no beginning where nobody told its phases; its time is not reckoned with."""
        seconds = self.seconds if self.since is None else (*self.seconds, now - self.since)[-RECENT:]
        seen = {
            name: Last(step, (*(self.last[name].values if name in self.last else ()), value)[-RECENT:])
            for name, value in values.items()
        }
        last = MappingProxyType({**self.last, **seen})
        return replace(self, done=step + 1, since=now, seconds=seconds, last=last)

    def left(self, now: float) -> float | None:
        """Seconds until the end: the median of the recent steps, so that one that also evaluates or saves shifts
        nothing. None before a step was timed.
        """
        if not self.seconds or self.since is None:
            return None
        each = median(self.seconds)
        return max(each * (self.steps - self.done) - min(now - self.since, each), 0.0)

    def cells(self, step: int | None = None) -> list[tuple[str, str]]:
        """Label and value of what is shown; of one step only, or as last seen."""
        return [
            (label, form.format(last.values[-1]))
            for name, label, form in SHOWN
            if (last := self.last.get(name)) is not None and step in (None, last.step)
        ]

    def picture(self, now: float, width: int, *, ascii_only: bool = False) -> Group:
        """A line with the bar, and one for each metric: value, trend, and the step it is from where that is past."""
        head = f"step {self.done}/{self.steps}  {100 * self.done // self.steps}%  {left(self.left(now))}"
        phase = self.phase if width >= BAR + len(head) + len(self.phase) + 4 else ""
        line = Table.grid(padding=(0, 2))
        for _ in range(3):
            line.add_column(no_wrap=True)
        bar = min(max(width - len(head) - len(phase) - 4, BAR), 4 * BAR)
        line.add_row(ProgressBar(total=self.steps, completed=self.done, width=bar), Text(head, "bold"), phase)
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, style="dim")
        for name, label, form in SHOWN:
            if name in self.last:
                last = self.last[name]
                trend = sparkline(last.values, ASCII_BARS if ascii_only else BARS) if width >= TREND_FROM else ""
                old = f"step {last.step + 1}" if last.step + 1 < self.done else ""
                table.add_row(label, form.format(last.values[-1]), trend, old)
        return Group(line, table)


def left(seconds: float | None) -> str:
    """The time left, in words of a fixed form.

    >>> left(None), left(75.4), left(3 * 3600 + 120)
    ('ETA -:--', 'ETA 1:15', 'ETA 3:02:00')
    >>> left(3 * 86400)
    'ETA 3 d 0 h'
    """
    if seconds is None:
        return "ETA -:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"ETA {hours // 24} d {hours % 24} h"
    return f"ETA {hours}:{minutes:02d}:{rest:02d}" if hours else f"ETA {minutes}:{rest:02d}"


def sparkline(values: Sequence[float], bars: str = BARS) -> str:
    """The values as bars between their least and their largest; all equal: a line in the middle.

    >>> sparkline([0, 1, 2, 3.5]), sparkline([2, 2])
    ('▁▃▅█', '▄▄')
    """
    finite = [value for value in values if isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    if high == low:
        return bars[(len(bars) - 1) // 2] * len(finite)
    return "".join(bars[round((value - low) / (high - low) * (len(bars) - 1))] for value in finite)
