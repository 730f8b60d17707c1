"""Two engines that draw while the trainer goes on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from oneloop.errors import EngineError
from oneloop.ports import Begun, Finished, RolloutEngine
from oneloop.rollout.beside.arriving import Arriving
from oneloop.rollout.beside.process import Sampler
from oneloop.rollout.engine import Engine
from oneloop.types import Completion, Sampling

T = TypeVar("T")


class SecondProcess:
    """Implements `oneloop.ports.BesideEngine` with the built-in engine.

    Args:
        here: draws in this process, from the weights that are being trained: evaluation, and what cannot wait.
        sampler: draws beside it, from copies.
    """

    def __init__(self, here: Engine, sampler: Sampler) -> None:
        self._here, self._sampler = here, sampler
        self.version, self.exact, self.note = here.version, here.exact, here.note
        self.generate = here.generate

    def update(self, version: int) -> None:
        self.version = version
        self._here.update(version)
        if self._sampler.running:
            self._sampler.update(version)

    def begin(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> Begun:
        if not self._sampler.running:
            self._sampler.start()
            self._sampler.update(self.version)
        return self._sampler.begin(prompts, sampling, seeds)

    def until(self, done: Future[T]) -> T:
        return done.result()

    def close(self) -> None:
        self._sampler.close()


@runtime_checkable
class Elsewhere(RolloutEngine, Protocol):
    """An engine with weights of its own."""

    note: str

    def close(self) -> None: ...


class OneThread:
    """Implements `oneloop.ports.BesideEngine` with an engine elsewhere: one thread asks it, one call after another.

    An update, or what cannot wait, begins when all that was begun has ended, and is the calling thread's: it may take
    passes and calls of all ranks.
    """

    def __init__(self, engine: Elsewhere) -> None:
        self._engine = engine
        self.version, self.exact, self.note = engine.version, engine.exact, engine.note
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def update(self, version: int) -> None:
        self._drain()
        self._engine.update(version)
        self.version = self._engine.version

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        finished: Finished = lambda index, completion: None,
    ) -> list[Completion]:
        self._drain()
        return self._engine.generate(prompts, sampling, seeds, finished)

    def _drain(self) -> None:
        self._thread.submit(lambda: None).result()

    def begin(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> Begun:
        arriving = Arriving(len(prompts))
        future = self._thread.submit(self._engine.generate, prompts, sampling, seeds, arriving.done)
        future.add_done_callback(partial(_tell, arriving))
        return arriving

    def until(self, done: Future[T]) -> T:
        return done.result()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._engine.close()


def _tell(arriving: Arriving, future: Future[list[Completion]]) -> None:
    try:
        error = future.exception()
    except CancelledError:
        error = EngineError("the run ended before this was drawn")
    if error is not None:
        arriving.failed(error)
