"""SIGINT and SIGTERM ask a run to save and stop at the end of its step; the second one stops it at once.

Python runs a handler between two of its own instructions, and a backward pass of a large model is a single one. So a
thread reads from the pipe into which the interpreter puts signals as they arrive: it answers at once, and it ends a
process whose main thread does not come back after the second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic
from types import FrameType
from typing import Any

LISTENED = (signal.SIGINT, signal.SIGTERM)
GRACE = 3.0
"""Seconds after the second signal in which the main thread may end by itself."""
TOGETHER = 1.0
"""Seconds within which one signal of each kind are one request: some supervisors send both."""
FIRST = b"\nstopping after this step, with everything saved; again to stop now\n"
SECOND = b"\nstopping now\n"


class Interrupted(KeyboardInterrupt):
    """The second signal: what Python raises of itself, with the number that the exit code is made of."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


class Heard:
    """The first signal, and which later one is the second."""

    def __init__(self) -> None:
        self.signum = 0
        self._at = 0.0

    def again(self, signum: int) -> bool:
        """Whether this one comes on top of another."""
        if not self.signum:
            self.signum, self._at = signum, monotonic()
            return False
        return signum == self.signum or monotonic() - self._at > TOGETHER


@dataclass
class StopRequest:
    """The signal that was received, if any.

    Args:
        last_words: called where the process has to be ended from outside its main thread.
    """

    last_words: Callable[[int], None]
    says: bool = True
    """Whether it answers in the terminal; of several ranks, one does."""
    ended: Event = field(default_factory=Event)
    heard: Heard = field(default_factory=Heard)

    @property
    def signum(self) -> int:
        """Of the first signal; 0: there was none."""
        return self.heard.signum

    def receive(self, signum: int, frame: FrameType | None) -> None:
        if self.heard.again(signum):
            raise Interrupted(signum)

    def answer(self, pipe: int) -> None:
        """Read the pipe until it is closed, a byte a signal."""
        heard, ending = Heard(), False
        while byte := os.read(pipe, 1):
            if byte[0] not in LISTENED:
                continue
            first = not heard.signum
            if not heard.again(byte[0]) and not first:
                continue
            if self.says:
                _tell(FIRST if first else SECOND)
            if not first and not ending:
                ending = True
                Thread(target=self._end, args=(byte[0],), daemon=True).start()

    def _end(self, signum: int) -> None:
        if self.ended.wait(GRACE) or "ipykernel" in sys.modules:
            return  # a cell of a notebook must not take its kernel with it
        with suppress(Exception):
            self.last_words(signum)
        os._exit(128 + signum)


@contextmanager
def at_once() -> Iterator[None]:
    """While there is nothing to save, SIGTERM ends a command as Ctrl-C does: at once, and by an exit code."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # no main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_listening: list[tuple[Mapping[signal.Signals, Any], tuple[int, int]]] = []
"""What signals did before, and the pipe that they are written to, of each `stop_request`."""


def _deaf() -> None:
    """A fork shares the pipe: a signal to it would be one to the run, and the listener would wait for its end."""
    for before, pipe in _listening:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        for end in pipe:
            os.close(end)
    _listening.clear()


os.register_at_fork(after_in_child=_deaf)


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
    _listening.append((before, (reading, writing)))
    try:
        yield request
    finally:
        request.ended.set()
        _listening.pop()
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        listener.join()
        os.close(reading)


def _tell(words: bytes) -> None:
    with suppress(OSError):
        os.write(2, words)
