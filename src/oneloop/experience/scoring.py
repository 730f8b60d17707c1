"""From requests to scored trajectories: rewards are computed while the rest of the batch is still being drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter
from typing import NamedTuple

from oneloop.experience.drawing import Draw, check_all
from oneloop.experience.episodes import Request
from oneloop.ports import Scorer
from oneloop.types import Sampling, Trajectory

SLOW = 5.0
"""Seconds of waiting for rewards after which, and as often again, it is said how far they are."""


def silent(text: str) -> None:
    """Says nothing."""


Phase = Callable[[str, str], None]
"""Told which part of a step begins, and how far it is."""


def unwatched(name: str, note: str) -> None:
    """Nobody looks at the phase."""


class Scored(NamedTuple):
    trajectories: list[Trajectory]
    """In the order of the requests."""
    seconds: float
    """Spent in the scorer, be it beside the sampling or after it."""
    counts: Mapping[str, float] = {}
    """Of the drawing."""


def drawn_and_scored(
    draw: Draw,
    scorer: Scorer,
    requests: Sequence[Request],
    sampling: Sampling,
    *,
    early: bool,
    step: int = 0,
    say: Callable[[str], None] = silent,
    phase: Phase = unwatched,
) -> Scored:
    """One scored trajectory per request.

    Args:
        early: give the scorer each group as soon as its last row has ended, in one thread beside the sampling; a
            failure ends the sampling. Otherwise the scorer gets everything at once, afterwards.
        step: for rewards that ask.
        say: told how far the scoring is, while it is slow.
        phase: told that rewards alone are waited for, and how many are there.
    """
    progress = Progress(len(requests), say, phase)
    if not early:
        drawn = draw(requests, sampling, lambda index, item: None)
        start = perf_counter()
        with progress.told():
            scored = scorer(drawn.trajectories, step, progress.add)
        return Scored(scored, perf_counter() - start, drawn.counts)
    beside = _Beside(requests, scorer, step, progress)
    try:
        drawn = draw(requests, sampling, beside.finished)
        check_all(beside.count, len(requests))
        with progress.told():
            return beside.result()._replace(counts=drawn.counts)
    finally:
        beside.close()


class Progress:
    """How many of some samples have been scored, told while that is waited for, and said every few seconds."""

    def __init__(self, total: int, say: Callable[[str], None], phase: Phase) -> None:
        self._total, self._say, self._phase = total, say, phase
        self._done, self._waiting = 0, False

    def add(self, count: int) -> None:
        self._done += count
        if self._waiting:
            self._tell()

    def _tell(self) -> None:
        self._phase("score", f"{self._done} of {self._total}")

    @contextmanager
    def told(self) -> Iterator[None]:
        over, start = Event(), perf_counter()
        self._waiting = True
        self._tell()

        def tell() -> None:
            while not over.wait(SLOW):
                self._say(f"scoring: {self._done} of {self._total} after {perf_counter() - start:.0f} s")

        thread = Thread(target=tell, name="reward-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class _Beside:
    """One thread that scores whole groups in the order in which they are complete."""

    def __init__(self, requests: Sequence[Request], scorer: Scorer, step: int, progress: Progress) -> None:
        self._requests, self._scorer, self._step, self._progress = requests, scorer, step, progress
        self._members: dict[int, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            self._members[request.group].append(index)
        self._missing = {number: len(indices) for number, indices in self._members.items()}
        self._done: dict[int, Trajectory] = {}
        self._futures: list[tuple[list[int], Future[Scored]]] = []
        self._passed = 0  # of the futures, in their order: known to have ended well
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reward")

    @property
    def count(self) -> int:
        """What has been drawn so far."""
        return len(self._done)

    def finished(self, index: int, item: Trajectory) -> None:
        self._done[index] = item
        number = self._requests[index].group
        self._missing[number] -= 1
        if not self._missing[number]:
            group = self._members[number]
            self._futures.append((group, self._pool.submit(self._score, group)))
        while self._passed < len(self._futures) and (future := self._futures[self._passed][1]).done():
            future.result()  # raises where the scorer did: nothing is gained by sampling on
            self._passed += 1

    def _score(self, indices: list[int]) -> Scored:
        start = perf_counter()
        unscored = [self._done[index] for index in indices]
        return Scored(self._scorer(unscored, self._step, self._progress.add), perf_counter() - start)

    def result(self) -> Scored:
        items: dict[int, Trajectory] = {}
        seconds = 0.0
        for indices, future in self._futures:
            scored = future.result()
            items |= zip(indices, scored.trajectories, strict=True)
            seconds += scored.seconds
        return Scored([items[index] for index in range(len(self._requests))], seconds)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
