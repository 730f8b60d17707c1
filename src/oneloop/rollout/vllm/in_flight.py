"""Completions that a server draws beside the training: new weights wait for them, or meet them on their way."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from threading import Event, Thread
from typing import TypeVar

from oneloop.errors import EngineError
from oneloop.ports import Begun, Finished
from oneloop.rollout.beside.arriving import Arriving
from oneloop.rollout.vllm.alike import each
from oneloop.rollout.vllm.engine import VllmEngine
from oneloop.rollout.vllm.faults import Fault
from oneloop.rollout.vllm.requests import Link
from oneloop.types import Completion, Sampling

T = TypeVar("T")


class InFlight:
    """Implements `oneloop.ports.BesideEngine` with a server.

    What is begun is asked for at once, and waited for in a thread of its own. All else belongs to the thread that
    trains: the server is given weights, and started again, where nobody changes them and the ranks can meet. So a
    failure waits until that thread comes by, in whatever it asks for next. What the server had not answered by then is
    asked for again, of the newest weights. Of several ranks, which cannot meet while each waits for its own, it fails
    the step.

    Args:
        engine: where it keeps requests across its updates, they go on with other weights; else an update begins when
            all that was begun has ended, or has failed.
    """

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self.version, self.exact, self.note = engine.version, engine.exact, engine.note
        self._calls: list[_Call] = []
        self._stirred = Event()

    def update(self, version: int) -> None:
        if not self._engine.keeps:
            for call in self._calls:
                call.join()
        self._engine.update(version)
        self.version = self._engine.version
        self._mended()

    def begin(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> Begun:
        self._mended()
        call = _Call(self._engine, prompts, sampling, seeds, self._stirred)
        self._calls.append(call)
        call.ask(self._engine.link())
        return call.arriving

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        finished: Finished = lambda index, completion: None,
    ) -> list[Completion]:
        completions = self._engine.generate(prompts, sampling, seeds, finished)
        self._ask_again()
        return completions

    def until(self, done: Future[T]) -> T:
        done.add_done_callback(lambda _: self._stirred.set())
        while not done.done():
            self._stirred.wait()
            self._stirred.clear()
            if not done.done():
                self._while_waiting()
        return done.result()

    def close(self) -> None:
        self._engine.close()
        for call in self._calls:
            call.arriving.failed(EngineError("the run ended before this was drawn"))
            call.join()

    def _mended(self) -> None:
        """Every rank calls it. Returns when the server has the newest weights and is asked for all that was begun.

        Raises: EngineError.
        """
        self._engine.surely(partial(each, self._engine.crew, self._look))
        self._ask_again()

    def _look(self) -> None:
        """Raises: Fault of a server that is not what it should be, or of a call that failed there."""
        for call in self._calls:
            if call.lost is not None and call.life == self._engine.current.life:
                raise call.lost
        self._engine.check_version()

    def _ask_again(self) -> None:
        """What was on its way at a server that is no more."""
        self._calls = [call for call in self._calls if not call.over]
        for call in self._calls:
            if call.life != self._engine.current.life:
                call.join()
                call.ask(self._engine.link())

    def _while_waiting(self) -> None:
        if self._engine.crew.ranks > 1:
            for call in self._calls:
                if call.lost is not None:
                    call.failed(self._engine.failure(call.lost))
            return
        try:
            self._mended()
        except EngineError as error:
            for call in self._calls:
                call.failed(error)


class _Call:
    """Completions that were begun together.

    Args:
        stirred: set when it failed, for the thread that trains.
    """

    def __init__(
        self,
        engine: VllmEngine,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        stirred: Event,
    ) -> None:
        self._engine, self._prompts, self._sampling, self._stirred = engine, prompts, sampling, stirred
        self._left = engine.questions(prompts, sampling, seeds)
        self.arriving = Arriving(len(prompts))
        self.lost: Fault | None = None
        """What it failed with, and waits to be asked again for."""
        self.life, self.over, self._blamed = 0, False, False

    def ask(self, link: Link) -> None:
        """For what is left."""
        self.lost, self.life = None, link.life
        self._thread = Thread(target=self._drawn, args=(link,), name="in flight", daemon=True)
        self._thread.start()

    def _drawn(self, link: Link) -> None:
        try:
            self._engine.draw(self._prompts, self._sampling, self._left, link, self.arriving.done)
            self.over = True
        except Fault as fault:
            self._missed(fault)
        except Exception as error:
            self.failed(error)

    def _missed(self, fault: Fault) -> None:
        """Once a server may be started again for it."""
        if self.life == self._engine.current.life:
            if self._blamed:
                return self.failed(self._engine.failure(fault))
            self._blamed = True
        self.lost = fault
        self._stirred.set()

    def failed(self, error: Exception) -> None:
        self.over = True
        self.arriving.failed(error)

    def join(self) -> None:
        self._thread.join()
