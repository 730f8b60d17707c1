"""Environments whose episodes are over, while they close: beside the drawing of others, waited for at the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import NamedTuple

from oneloop.environments.timed import TimedCall
from oneloop.rewards.guarded import PAUSE, Caller, Given

MOST_CLOSING = 64
"""That are not done with it, before one more waits for the oldest."""


class _Closing(NamedTuple):
    caller: Caller
    call: TimedCall
    given: Given
    begun: float


class Closings:
    """Calls `close` of environments, each in its environment's thread.

    Args:
        timeout: seconds for one of them. What is not done then is told to end, and left where it cannot: its slot is
            free for others.
        stuck: told of each that is left.
    """

    def __init__(self, timeout: float, stuck: Callable[[], None] = lambda: None) -> None:
        self._timeout, self._stuck, self._lock = timeout, stuck, Lock()
        self._going = deque[_Closing]()

    def add(self, caller: Caller, close: TimedCall) -> None:
        """Returns at once, unless many others are not done."""
        given = caller.give(close)
        caller.close()
        with self._lock:
            self._going.append(_Closing(caller, close, given, monotonic()))
        self._settle(MOST_CLOSING, self._timeout)

    def finish(self) -> None:
        """All of them, for as long as one may take."""
        self._settle(0, self._timeout)

    def end_overdue(self) -> None:
        """Those that have had their time."""
        with self._lock:
            over = [one for one in self._going if one.call.over(self._timeout)]
            self._going = deque(one for one in self._going if one not in over)
        for one in over:
            if not one.given.done.is_set():
                self._end(one)

    def _settle(self, most: int, seconds: float) -> None:
        """Until no more than `most` are going, or so many seconds have passed."""
        until = monotonic() + seconds
        while (oldest := self._oldest(most)) is not None:
            left = min(oldest.begun + self._timeout, until) - monotonic()
            if not oldest.given.done.wait(max(left, 0.0)):  # what it raised concerns nobody
                self._end(oldest)

    def _end(self, one: _Closing) -> None:
        if not one.call.cancel():  # it waits for a slot, where nothing can end it, and will find nothing to do
            return
        if not one.given.done.wait(PAUSE) and not one.caller.end():
            self._stuck()
        one.call.give_up()

    def _oldest(self, most: int) -> _Closing | None:
        with self._lock:
            self._going = deque(one for one in self._going if not one.given.done.is_set())
            return self._going.popleft() if len(self._going) > most else None
