"""SIGINT and SIGTERM ask a run to save and stop at the end of its step; the second one stops it at once.

Python runs a handler between two of its own instructions, and a backward pass of a large model is a single one. So a
thread reads from the pipe into which the interpreter puts signals as they arrive: it answers at once, and it ends a
process whose main thread does not come back after the second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from types import FrameType

LISTENED = (signal.SIGINT, signal.SIGTERM)
GRACE = 3.0
"""Seconds after the second signal in which the main thread may end by itself."""
FIRST = b"\nstopping after this step, with everything saved; again to stop now\n"
SECOND = b"\nstopping now\n"


class Interrupted(KeyboardInterrupt):
    """The second signal: what Python raises of itself, with the number that the exit code is made of."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


@dataclass
class StopRequest:
    """The signal that was received, if any.

    Args:
        last_words: called where the process has to be ended from outside its main thread.
    """

    last_words: Callable[[int], None]
    says: bool = True
    """Whether it answers in the terminal; of several ranks, one does."""
    signum: int = 0
    ended: Event = field(default_factory=Event)

    def receive(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise Interrupted(signum)
        self.signum = signum

    def answer(self, pipe: int) -> None:
        """Read the pipe until it is closed, a byte a signal."""
        count = 0
        while byte := os.read(pipe, 1):
            if byte[0] not in LISTENED:
                continue
            count += 1
            if self.says:
                _tell(FIRST if count == 1 else SECOND)
            if count == 2:
                Thread(target=self._end, args=(byte[0],), daemon=True).start()

    def _end(self, signum: int) -> None:
        if self.ended.wait(GRACE) or "ipykernel" in sys.modules:
            return  # a cell of a notebook must not take its kernel with it
        with suppress(Exception):
            self.last_words(signum)
        os._exit(128 + signum)


@contextmanager
def stop_request(last_words: Callable[[int], None], says: bool = True) -> Iterator[StopRequest]:
    """Listen while the block runs; outside the main thread nothing can be heard, and nothing is changed."""
    request = StopRequest(last_words, says)
    try:
        before = {number: signal.signal(number, request.receive) for number in LISTENED}
    except ValueError:
        yield request
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = Thread(target=request.answer, args=(reading,), daemon=True)
    listener.start()
    old = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield request
    finally:
        request.ended.set()
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        listener.join()
        os.close(reading)


def _tell(words: bytes) -> None:
    with suppress(OSError):
        os.write(2, words)
