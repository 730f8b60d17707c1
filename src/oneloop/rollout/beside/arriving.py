"""Completions that another thread hears of, for whoever waits for them."""

from __future__ import annotations

from queue import SimpleQueue

from oneloop.ports import Finished
from oneloop.types import Completion


class Arriving:
    """Implements `oneloop.ports.Begun`.

    Args:
        count: completions to wait for.
    """

    def __init__(self, count: int) -> None:
        self._count = self._missing = count
        self._queue: SimpleQueue[tuple[int, Completion] | BaseException] = SimpleQueue()

    @property
    def complete(self) -> bool:
        return self._missing == 0

    def done(self, index: int, completion: Completion) -> None:
        self._missing -= 1
        self._queue.put((index, completion))

    def failed(self, error: BaseException) -> None:
        self._queue.put(error)

    def __call__(self, finished: Finished) -> list[Completion]:
        """Raises: what was given to `failed`."""
        done: dict[int, Completion] = {}
        while len(done) < self._count:
            arrived = self._queue.get()
            if isinstance(arrived, BaseException):
                raise arrived
            done[arrived[0]] = arrived[1]
            finished(*arrived)
        return [done[index] for index in range(self._count)]
