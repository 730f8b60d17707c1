"""The best model so far, by held-out data: never by what is trained on, which rises while the task gets worse."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from math import isfinite
from pathlib import Path

from oneloop.data import Kind
from oneloop.errors import CheckpointError, ConfigError
from oneloop.ports import Recorder
from oneloop.recipes.refused import refused_by_disk
from oneloop.record.atomic import new_folder, verify
from oneloop.record.writer import RunFolder
from oneloop.together import Alone, Crew

METRIC: dict[Kind, str] = {
    "prompts": "eval/reward",
    "demonstrations": "eval/loss",
    "preferences": "eval/rewards/accuracies",
    "unpaired": "eval/loss",
}
"""What is compared when --keep-best-by names nothing."""
LEAST_IS_BEST = ("loss", "kl", "clipped_ratio", "unscored")
"""Last parts of metrics of which less is better; of all others, more is."""


class Best:
    """Hook: after an evaluation that beats all before it, the model goes to RUN/best, with best.json beside it.

    best.json says metric, value and `done`, the finished steps; on resume it is what there is to beat.

    Args:
        write: puts the model as it is now into a folder.
        writers: the ranks that do so together.
    """

    def __init__(
        self,
        metric: str,
        folder: RunFolder,
        recorder: Recorder,
        write: Callable[[Path], None],
        writers: Crew = Alone(),  # noqa: B008
    ) -> None:
        self._writers = writers
        self._metric, self._folder, self._recorder, self._write = metric, folder, recorder, write
        self._path = folder.path / "best"
        self._value = _recorded(self._path / "best.json", metric)

    def before(self) -> None:
        """Where the model was measured before the first step, it is the first to beat.

        Raises: ConfigError for a metric that the evaluation does not have, while nothing is lost yet.
        """
        if self._folder.evaluated is None:
            return
        values = self._folder.evaluated[1]
        if self._metric not in values and self._metric not in METRIC.values():
            near = get_close_matches(self._metric, values, 1, 0.0)[0]
            raise ConfigError(
                f"--keep-best-by {self._metric}: the evaluation measures {', '.join(values)}. "
                f"Fix: --keep-best-by {near}"
            )
        self._look(0)

    def __call__(self, step: int, algorithm: object) -> None:
        self._look(step + 1)

    def _look(self, done: int) -> None:
        if self._folder.evaluated is None or self._folder.evaluated[0] != done:
            return
        value = self._folder.evaluated[1].get(self._metric)
        if value is None or not isfinite(value):
            text = f"the evaluation after {done} steps has no {self._metric}, so its model cannot be the best"
            self._recorder.event(max(done - 1, 0), "A_BEST", text, "look at eval/rewards/unscored")
        elif self._value is None or (value < self._value if self._least else value > self._value):
            self._save(done, value)

    @property
    def _least(self) -> bool:
        return self._metric.rpartition("/")[2].endswith(LEAST_IS_BEST)

    def _save(self, done: int, value: float) -> None:
        """A disk that refuses leaves the older best, which the next evaluation is compared with."""
        if self._folder.keeps or self._writers.ranks > 1:
            refused = refused_by_disk(self._writers, partial(self._put, done, value))
            if refused is not None:
                text = f"the best model so far, after {done} steps, could not be saved: {refused}"
                self._recorder.event(max(done - 1, 0), "A_SAVE", text, "make room; the older one stands")
                return
        self._value = value

    def _put(self, done: int, value: float) -> None:
        with new_folder(self._path, self._writers) as temporary:
            self._write(temporary)
            if self._folder.keeps:
                facts = {"metric": self._metric, "value": value, "done": done}
                (temporary / "best.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _recorded(path: Path, metric: str) -> float | None:
    """The value to beat, where an earlier process kept one by the same metric.

    Raises: ConfigError where it is damaged: a worse model could take its place.
    """
    if not path.parent.exists():
        return None
    try:
        verify(path.parent, ("best.json",))
        facts = json.loads(path.read_text(encoding="utf-8"))
        return float(facts["value"]) if facts["metric"] == metric else None
    except (CheckpointError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--keep-best: {path.parent} is damaged, so nobody can tell what there is to beat "
            f"({str(error).partition(' Fix:')[0]}). Fix: put it back, or rm -r {path.parent}, and the next evaluation "
            "is the first to beat"
        ) from error
