"""One call of an environment's method, which holds one of the slots for calls until it ends, or is given up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from threading import BoundedSemaphore, Lock, get_ident
from time import monotonic
from typing import Any

from oneloop.rewards.blame import described
from oneloop.rewards.guarded import undisturbed

LOOK = 0.05
"""Seconds between looks whether a call has begun."""


class TimedCall:
    """What a `Caller` carries out. Its time begins when it has a slot.

    Args:
        free: slots.
        loop: gives the loop of what is async, and the number of its thread.
    """

    def __init__(
        self,
        free: BoundedSemaphore,
        loop: Callable[[], tuple[asyncio.AbstractEventLoop, int]],
        work: Callable[[], Any],
    ) -> None:
        self._free, self._loop, self._work = free, loop, work
        self._lock = Lock()
        self._begun: float | None = None
        self._awaited: Any = None
        self._holds = self._cancelled = False
        self.raised = False

    def __call__(self) -> Any:
        if not self._begin():
            return None
        try:
            with undisturbed(get_ident()):
                value = self._work()
            return self._waited_for(value) if inspect.isawaitable(value) else value
        except BaseException:
            self.raised = True
            raise
        finally:
            self.give_up()

    def _begin(self) -> bool:
        """Whether it still is to be done, when there is a slot for it."""
        self._free.acquire()
        with self._lock:
            if self._cancelled:
                self._free.release()
                return False
            self._holds, self._begun = True, monotonic()
            return True

    def _waited_for(self, value: Any) -> Any:
        loop, thread = self._loop()
        with undisturbed(thread):
            self._awaited = asyncio.run_coroutine_threadsafe(_waited(value), loop)
            if self._cancelled:  # while it made what is waited for
                self._awaited.cancel()
            return self._awaited.result()

    def left(self, timeout: float) -> float:
        """Seconds to wait before it is looked at again."""
        return LOOK if self._begun is None else max(self._begun + timeout - monotonic(), 0.0)

    def over(self, timeout: float) -> bool:
        return self._begun is not None and monotonic() >= self._begun + timeout

    def cancel(self) -> bool:
        """What is async ends; what has not begun never does. Returns: whether it had begun."""
        with self._lock:
            self._cancelled = True
        if self._awaited is not None:
            with suppress(RuntimeError):
                self._awaited.cancel()
        return self._begun is not None

    def give_up(self) -> None:
        """Its slot is free again, also where it hangs for ever."""
        with self._lock:
            if self._holds:
                self._holds = False
                self._free.release()


async def _waited(value: Any) -> Any:
    try:
        return await value
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would end the loop, and with it everybody's calls
        raise RuntimeError(described(error)) from None
