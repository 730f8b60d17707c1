"""Several runs one after another in one panel: a bar over all of them, and below it the run that trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic

from rich.console import Console, ConsoleOptions, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from oneloop.cli.board import left
from oneloop.cli.terminal import Terminal


class Stages:
    """Draws itself in a `rich.live.Live`; without a terminal its runs print lines.

    Args:
        expected: seconds of each stage on some machine, in order. What counts is how they compare.
        lines: how many lines a run prints without a terminal.
    """

    def __init__(self, expected: Mapping[str, float], console: Console, lines: int = 10) -> None:
        self._expected, self._console, self._lines = expected, console, lines
        self._start, self._name = monotonic(), ""
        self._watcher: Terminal | None = None

    def begin(self, name: str, steps: int) -> Terminal:
        """The next stage; returns who watches it."""
        self.end()
        if not self._console.is_terminal:
            self._console.rule(name)
        watcher = Terminal(steps, self._console, live=self._console.is_terminal, every=max(steps // self._lines, 1))
        self._name, self._watcher = name, watcher
        return watcher

    def end(self) -> None:
        """What a stage came to stays above the panel."""
        if self._watcher is None or not self._console.is_terminal:
            return
        cells = ", ".join(f"{label} {text}" for label, text in self._watcher.board.cells()[:4])
        self._watcher.say(f"{self._name}: {self._watcher.board.done} steps; {cells}")

    def done(self) -> float:
        """Share of the whole, by expected seconds."""
        names = list(self._expected)
        if self._watcher is None:
            return 0.0
        before = sum(self._expected[name] for name in names[: names.index(self._name)])
        board = self._watcher.board
        return (before + self._expected[self._name] * board.done / board.steps) / sum(self._expected.values())

    def left(self, now: float) -> float | None:
        """Seconds until the end, at the speed so far; None while too little is done to tell."""
        done = self.done()
        return None if done < 0.02 else (now - self._start) * (1 - done) / done

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Group]:
        names = list(self._expected)
        if self._watcher is None:
            return
        number = names.index(self._name) + 1
        head = f"{self._name} ({number} of {len(names)})  {self.done():.0%}  {left(self.left(monotonic()))}"
        line = Table.grid(padding=(0, 2))
        for _ in range(2):
            line.add_column(no_wrap=True)
        width = min(max(options.max_width - len(head) - 2, 10), 40)
        line.add_row(ProgressBar(total=1.0, completed=self.done(), width=width), Text(head, "bold"))
        yield Group(line, self._watcher.board.picture(monotonic(), options.max_width, ascii_only=options.ascii_only))
