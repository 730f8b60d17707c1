"""Loggers beside the run folder's files: told last, and dropped at their first failure. The run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from oneloop.errors import ConfigError

Alert = Callable[[str, str, str], None]
"""Told code, text and fix."""


class Sink(Protocol):
    """One logger's run. Every call may raise whatever the logger raises."""

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        """Finite values after so many finished steps; 0 is before the first."""
        ...

    def event(self, done: int, code: str, text: str) -> None: ...

    def close(self, *, failed: bool) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a logger is told at the start.

    Args:
        folder: the run folder; its name is the name of the run.
        config: the run's settings.
        done: finished steps when it begins; above 0, a run that is gone on with.
    """

    folder: Path
    config: Mapping[str, Any]
    done: int = 0

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def project(self) -> str:
        """Where the logger's own environment variable names no other."""
        return "oneloop"


def check_installed(names: Sequence[str]) -> None:
    """Raises: ConfigError for a logger whose package is missing, before anything is loaded."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f'--report-to {name}: {name} is not installed. Fix: pip install "oneloop[{name}]"')


class Sinks:
    """The loggers that still work."""

    def __init__(self, alert: Alert) -> None:
        self._alert = alert
        self._open: dict[str, Sink] = {}

    def open(self, names: Sequence[str], opening: Opening) -> None:
        """Start each logger's run, or go on with it where the logger knows how to."""
        for name in names:
            try:
                # each logger's file loads its package, which takes seconds: only on request
                module = import_module(f"oneloop.record.to_{name}")
                self._open[name] = module.open_sink(opening)
            except Exception as error:
                self._failed(name, error)

    def scalars(self, done: int, values: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in values.items() if isfinite(value)}
        self._each(lambda sink: sink.scalars(done, finite))

    def event(self, done: int, code: str, text: str) -> None:
        self._each(lambda sink: sink.event(done, code, text))

    def close(self, *, failed: bool) -> None:
        self._each(lambda sink: sink.close(failed=failed))
        self._open.clear()

    def _each(self, tell: Callable[[Sink], None]) -> None:
        for name, sink in list(self._open.items()):
            try:
                tell(sink)
            except Exception as error:
                del self._open[name]  # before the alert, which goes to the loggers that are left
                self._failed(name, error)

    def _failed(self, name: str, error: Exception) -> None:
        words = " ".join(str(error).split())[:300]
        self._alert(
            "A_LOGGER",
            f"{name} failed and is told no more ({type(error).__name__}: {words}); the files of the run folder go on",
            _FIXES[name],
        )


_FIXES = {
    "tensorboard": "free disk space, or leave out --report-to tensorboard",
    "wandb": "`wandb login`, or WANDB_MODE=offline and `wandb sync` later",
    "trackio": "look at TRACKIO_DIR, or leave out --report-to trackio",
}
