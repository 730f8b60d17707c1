"""A run's recorder that looks at its health after each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any

from oneloop.algorithms import PolicyGradient
from oneloop.config import Run
from oneloop.health import Limits, Setting, Watch
from oneloop.ports import Recorder
from oneloop.types import Trajectory


class Healthy:
    """Implements `oneloop.ports.Recorder`: records, and adds an event for whatever is ill."""

    def __init__(self, recorder: Recorder, watch: Watch) -> None:
        self._recorder, self._watch = recorder, watch

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._recorder.scalars(step, values)
        for alert in self._watch(step, values):
            self._recorder.event(step, alert.code, alert.text, alert.fix)

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None:
        self._recorder.trajectories(step, items)

    def event(self, step: int, code: str, text: str, fix: str = "") -> None:
        self._recorder.event(step, code, text, fix)


def watch_of(run: Run, algorithm: object, eval_rows: int, before: Iterable[Mapping[str, Any]]) -> Watch:
    """The checks of this run, with the steps that are done already taken in."""
    # an agent's entropy may fall as far as it likes: that of a Gaussian has no zero, and a solved task needs no chance
    limits = Limits(entropy_floor=-inf, entropy_high=inf) if run.env else Limits()
    region = algorithm.region if isinstance(algorithm, PolicyGradient) else None
    watch = Watch(
        Setting(
            max_new_tokens=run.max_new_tokens,
            max_turns=run.max_turns if run.environment else 0,
            group_size=run.group_size,
            resamples=isinstance(algorithm, PolicyGradient) and algorithm.keep is not None,
            prompts_per_step=run.prompts_per_step,
            eval_answers=run.eval_size if run.env else eval_rows * run.eval_samples,
            max_kl=region.max_kl if region else 0.0,
            searches=region is None or region.backtracks is not None,
        ),
        limits,
    )
    watch.replay(before)
    return watch
