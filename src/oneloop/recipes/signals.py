"""SIGINT and SIGTERM ask a run to save and stop at the end of its step; the second one does what it did before."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any


@dataclass
class StopRequest:
    """The signal that was received, if any."""

    signum: int = 0
    before: dict[int, Any] = field(default_factory=dict)
    """What each signal did before: a second Ctrl-C must stop a cell of a notebook, and not end its kernel."""

    def receive(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, self.before.get(signum, signal.SIG_DFL))


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listen while the block runs; outside the main thread nothing can be heard, and nothing is changed."""
    request = StopRequest()
    with suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            request.before[number] = signal.signal(number, request.receive)
    try:
        yield request
    finally:
        for number, handler in request.before.items():
            signal.signal(number, handler)
