"""Who watches a run, and the recorder that tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol, runtime_checkable

from oneloop.config import Run
from oneloop.recipes.best import METRIC
from oneloop.record.sinks import Opening, Sinks
from oneloop.record.writer import RunFolder
from oneloop.secrets import redacted
from oneloop.together import Alone, Crew, together
from oneloop.types import Trajectory


@runtime_checkable
class Observer(Protocol):
    """Who watches a run: the terminal."""

    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None: ...


@runtime_checkable
class PhaseObserver(Observer, Protocol):
    """An observer that also wants to know what a run is busy with."""

    def phase(self, name: str, note: str = "") -> None:
        """`name`: rollout, score, prepare, update, evaluation or saving. `note`: how far it is, such as 37 of 64."""
        ...


class Silent:
    """Implements `Observer`: nobody watches."""

    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None: ...


class Watched:
    """A recorder that tells the observer and the loggers too, the files first.

    Args:
        phased: told the name of each phase, for who does not look at the terminal.
        crew: the ranks. What the first of them cannot write ends all alike, so that they can save together.
    """

    def __init__(
        self,
        folder: RunFolder,
        observer: Observer,
        phased: Callable[[str], None] = lambda name: None,
        crew: Crew = Alone(),  # noqa: B008
    ) -> None:
        self._folder, self._observer, self._done, self._phased, self._crew = folder, observer, 0, phased, crew
        self._sinks = Sinks(lambda code, text, fix: self.event(self._done, code, text, fix))

    def report_to(self, run: Run, start: int) -> None:
        """Start the run's loggers, where the run is kept."""
        self._done = start
        if self._folder.keeps:
            self._sinks.open(run.report_to, Opening(folder=self._folder.path, config=redacted(asdict(run)), done=start))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        together(self._crew, lambda: self._folder.scalars(step, values))
        self._observer.step(step, values)
        self._done = step
        self._sinks.scalars(step + 1, values)

    def before(self, values: Mapping[str, float]) -> None:
        """Measures of held-out data before the first step."""
        self._folder.evaluation(0, values)
        shown = [f"{name} {value:.4g}" for name, value in values.items() if name in METRIC.values()]
        self._observer.say(f"before the first step: {', '.join(shown) or 'nothing could be measured'}")
        self._sinks.scalars(0, values)

    def phase(self, name: str, note: str = "") -> None:
        self._phased(name)
        if isinstance(self._observer, PhaseObserver):
            self._observer.phase(name, note)

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None:
        together(self._crew, lambda: self._folder.trajectories(step, items))

    def event(self, step: int, code: str, text: str, fix: str = "") -> None:
        self._folder.event(step, code, text, fix)
        # files count steps from 0, people from 1
        self._observer.say(f"{code} step {step + 1}: {text}" + (f". Fix: {fix}" if fix else ""))
        self._sinks.event(step + 1, code, str(redacted(text)))

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._sinks.close(failed=kind is not None)
