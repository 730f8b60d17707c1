"""The built-in engine, drawing while the trainer goes on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock
from typing import TypeVar

from oneloop.errors import EngineError
from oneloop.ports import Begun
from oneloop.rollout.beside.process import Sampler
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling

T = TypeVar("T")


class SecondProcess:
    """Implements `oneloop.ports.BesideEngine` with the built-in engine. Episodes are begun in a thread of their own,
    which may come when all is closed: then no process is started that nobody would end.

    Args:
        here: draws in this process, from the weights that are being trained: evaluation, and what cannot wait.
        sampler: draws beside it, from copies.
    """

    def __init__(self, here: Engine, sampler: Sampler) -> None:
        self._here, self._sampler = here, sampler
        self.version, self.exact, self.note = here.version, here.exact, here.note
        self.generate = here.generate
        self._lock, self._closed = Lock(), False

    def update(self, version: int) -> None:
        self.version = version
        self._here.update(version)
        if self._sampler.running:
            self._sampler.update(version)

    def begin(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> Begun:
        """Raises: EngineError where the process is gone, or all is closed."""
        with self._lock:
            if self._closed:
                raise EngineError("the run ended before this was begun")
            if not self._sampler.running:
                self._sampler.start()
                self._sampler.update(self.version)
            return self._sampler.begin(prompts, sampling, seeds)

    def until(self, done: Future[T]) -> T:
        return done.result()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._sampler.close()
