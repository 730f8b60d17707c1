"""SIGINT and SIGTERM ask a run to save and stop at the end of its step; the second one stops it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """The signal that was received, if any."""

    signum: int = 0

    def receive(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listen while the block runs; outside the main thread nothing can be heard, and nothing is changed."""
    request = StopRequest()
    try:
        before = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        before = {}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
