"""What a run shows in a notebook: a bar and the last values, in place, under the cell that trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from html import escape
from time import monotonic
from typing import Any

from oneloop.cli.terminal import SHOWN

REFRESH_SECONDS = 0.25
NOTES_SHOWN = 12
"""Lines of notes and alerts under the bar; the run folder has all of them."""


def in_notebook() -> bool:
    """Whether this code runs in a Jupyter kernel. Nothing is imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class Progress:
    """Implements `oneloop.recipes.watched.Observer`. One output of the cell, which is changed in place.

    Args:
        show: called with this object for each new picture of it.
    """

    def __init__(self, steps: int, show: Callable[[Any], object]) -> None:
        self._steps, self._show = steps, show
        self._start, self._shown_at = monotonic(), 0.0
        self._done, self._seen = 0, 0
        self._values: dict[str, float] = {}
        self._notes: list[str] = []

    def say(self, text: str) -> None:
        self._notes += text.splitlines()
        self._refresh()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self._done, self._seen = step + 1, self._seen + 1
        self._values |= values  # an evaluation's values stay until the next one
        if self._done == self._steps or monotonic() - self._shown_at > REFRESH_SECONDS:
            self._refresh()

    def _refresh(self) -> None:
        self._shown_at = monotonic()
        self._show(self)

    def _cells(self) -> list[tuple[str, str]]:
        return [(label, form.format(self._values[name])) for name, label, form in SHOWN if name in self._values]

    def _headline(self) -> str:
        if not self._seen:
            return f"step 0/{self._steps}"
        seconds = (monotonic() - self._start) / self._seen * (self._steps - self._done)
        return f"step {self._done}/{self._steps}   ETA {int(seconds // 60)}:{int(seconds % 60):02d}"

    def __repr__(self) -> str:
        """For front ends without HTML."""
        return " | ".join([self._headline(), *(f"{label} {text}" for label, text in self._cells())])

    def _repr_html_(self) -> str:
        # completions and file names are data: their tags are text
        cells = "".join(
            f'<tr><th style="text-align:left">{escape(label)}</th><td>{escape(text)}</td></tr>'
            for label, text in self._cells()
        )
        notes = "".join(f"<div>{escape(line)}</div>" for line in self._notes[-NOTES_SHOWN:])
        hidden = len(self._notes) - NOTES_SHOWN
        more = f"<div>… {hidden} lines before these</div>" if hidden > 0 else ""
        return (
            f'<div><progress value="{self._done}" max="{self._steps}" style="width:20em"></progress> '
            f"{escape(self._headline())}</div><table>{cells}</table>"
            f'<div style="font-size:85%;opacity:0.8">{more}{notes}</div>'
        )


def progress(steps: int) -> Progress:
    """Watch a run of that many steps in the running cell's output."""
    from IPython.display import DisplayHandle  # noqa: PLC0415  # only where a notebook has loaded it already

    handle = DisplayHandle()
    watcher = Progress(steps, handle.update)
    handle.display(watcher)
    return watcher
