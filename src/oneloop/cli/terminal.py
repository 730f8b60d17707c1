"""What a run shows: a live panel in a terminal, one plain line per step otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

SHOWN = (
    ("reward", "reward", "{:.3f}"),
    ("eval/reward", "eval reward", "{:.3f}"),
    ("loss", "loss", "{:.4f}"),
    ("eval/loss", "eval loss", "{:.4f}"),
    ("rewards/accuracies", "pair accuracy", "{:.3f}"),
    ("eval/rewards/accuracies", "eval pair accuracy", "{:.3f}"),
    ("kl", "KL", "{:.4f}"),
    ("entropy", "entropy", "{:.3f}"),
    ("frac_reward_zero_std", "dead groups", "{:.0%}"),
    ("completions/clipped_ratio", "truncated", "{:.0%}"),
    ("explained_variance", "explained variance", "{:.2f}"),
    ("grad_norm", "grad norm", "{:.3f}"),
    ("tokens_per_second", "tokens/s", "{:,.0f}"),
)
"""Metric, its label, its format."""


class Terminal:
    """Implements `oneloop.recipes.execute.Observer`.

    Args:
        live: the panel to keep up to date; None prints lines, one for every `every` steps.
    """

    def __init__(self, steps: int, console: Console, live: Live | None, every: int = 1) -> None:
        self._steps, self._console, self._live, self._every = steps, console, live, every
        self._start, self._seen = monotonic(), 0

    def say(self, text: str) -> None:
        # completions and file names are data: their brackets are no markup and their escapes no commands
        self._console.print(Text(visible(text)), soft_wrap=True)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self._seen += 1
        cells = [(label, form.format(values[name])) for name, label, form in SHOWN if name in values]
        left = self._left(step)
        if self._live is None:
            if (step + 1) % self._every and step + 1 < self._steps:
                return
            line = " | ".join(f"{label} {text}" for label, text in cells)
            self._console.print(Text(f"step {step + 1}/{self._steps} | {line} | ETA {left}"), soft_wrap=True)
            return
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("step", style="bold"), Text(f"{step + 1}/{self._steps}   ETA {left}", style="bold"))
        for label, text in cells:
            table.add_row(label, Text(text))
        self._live.update(table)

    def _left(self, step: int) -> str:
        seconds = (monotonic() - self._start) / self._seen * (self._steps - step - 1)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


@contextmanager
def terminal(steps: int) -> Iterator[Terminal]:
    """Watch a run of that many steps."""
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        yield Terminal(steps, console, None)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield Terminal(steps, console, live)


def visible(text: str) -> str:
    """Control characters shown, not obeyed: a completion must not move the cursor or set the clipboard."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
