"""What a run shows: a live panel in a terminal, one plain line per step otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.text import Text

from oneloop.cli.board import SHOWN, Board, left
from oneloop.cli.output import Patient, safe

__all__ = ["SHOWN", "Terminal", "terminal"]


class Terminal:
    """Implements `oneloop.recipes.watched.PhaseObserver`.

    Args:
        live: there is a panel, which draws this object a few times a second; otherwise each step prints a line.
        every: lines are printed for every so many steps.
    """

    def __init__(self, steps: int, console: Console, *, live: bool = False, every: int = 1) -> None:
        self._console, self._live, self._every = console, live, every
        self.board = Board(steps)

    def say(self, text: str) -> None:
        # completions and file names are data: their brackets are no markup and their escapes no commands;
        # in a terminal lines break between words, in a file not at all
        self._console.print(Text(safe(text)), soft_wrap=not self._console.is_terminal)

    def phase(self, name: str, note: str = "") -> None:
        self.board = self.board.in_phase(name, monotonic(), note)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        now = monotonic()
        self.board = self.board.after(step, values, now)
        if self._live or (self.board.done % self._every and self.board.done < self.board.steps):
            return
        line = " | ".join(f"{label} {text}" for label, text in self.board.cells(step))
        self.say(f"step {self.board.done}/{self.board.steps} | {line} | {left(self.board.left(now))}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Group]:
        yield self.board.picture(monotonic(), options.max_width, ascii_only=options.ascii_only)


@contextmanager
def terminal(steps: int) -> Iterator[Terminal]:
    """Watch a run of that many steps."""
    console = Console(file=Patient(sys.stdout), highlight=False)  # pyright: ignore[reportArgumentType]
    watcher = Terminal(steps, console, live=console.is_terminal)
    if not console.is_terminal:
        yield watcher
        return
    with Live(watcher, console=console, refresh_per_second=4):
        yield watcher
