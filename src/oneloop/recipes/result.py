"""A run that was carried out, read from its folder: nothing is kept that another process could not read as well."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oneloop.classic.save import is_agent
from oneloop.errors import ConfigError
from oneloop.lab.page import shown
from oneloop.model.load import is_reward_model, load_policy, load_reward_model, load_tokenizer
from oneloop.record.reader import RunRecord, read_run

if TYPE_CHECKING:  # slow to load
    from oneloop.lab.figure import Curves

LAST = ("reward", "eval/reward", "loss", "eval/loss", "rewards/accuracies", "eval/rewards/accuracies")
"""Metrics whose last values stand in a run's one line."""


@dataclass(frozen=True)
class FinishedRun:
    """What `oneloop.fit` and `oneloop.open_run` return.

    Args:
        path: the run folder. Every answer is read from it anew.
    """

    path: Path

    @property
    def record(self) -> RunRecord:
        """The folder's files, as plain values."""
        return read_run(self.path)

    @property
    def status(self) -> str:
        """finished, stopped, failed or running."""
        return str(self.record.info.get("status", "unknown"))

    def metrics(self) -> Any:
        """A row for each step, a column for each metric: a pandas DataFrame, or without pandas a dict of lists.

        A value that a step has not, or that was not finite, is NaN in the one and None in the other.
        """
        return _table(self.record.metrics)

    def rollouts(self, step: int | None = None) -> Any:
        """A row for each completion of a step (the last one that was kept), with its reward, parts and advantage.

        Raises: ConfigError for a step that has none.
        """
        return self._rows("rollouts", step)

    def ratios(self, step: int | None = None) -> Any:
        """A row for each completion that a step was trained on: log ρ of its tokens at every update. As `rollouts`."""
        return self._rows("ratios", step)

    def tokens(self, step: int | None = None) -> Any:
        """A few groups of a step token by token: log-probs, entropy, value, advantage, clip. As `rollouts`."""
        return self._rows("tokens", step)

    def pairs(self, step: int | None = None) -> Any:
        """Pairs of a step with their log-probs, margins and weights. As `rollouts`."""
        return self._rows("pairs", step)

    def _rows(self, name: str, step: int | None) -> Any:
        record = self.record
        if step is None:
            step = next(reversed(record.tables(name).steps()), 0)
        return _table(record.rows(name, step))

    def plot(self, *metrics: str) -> Curves:
        """The learning curves as a matplotlib figure, which a notebook shows: all that matter, or those named."""
        from oneloop.lab.figure import learning_curves  # noqa: PLC0415  # matplotlib is slow to load

        return learning_curves([(self.path.name, self.record)], metrics)

    def policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The trained model and its tokenizer, loaded from `final/`, or where the run was stopped from its newest
        checkpoint.

        Raises: ConfigError when nothing was saved yet, and for an agent.
        """
        folder = self._weights()
        if is_agent(folder):
            raise ConfigError(f"{folder} holds an agent. Fix: oneloop.classic.save.load_player(folder)")
        scores = is_reward_model(folder)
        return (load_reward_model if scores else load_policy)(folder), load_tokenizer(folder)

    def _weights(self) -> Path:
        places = [self.path / "final", *sorted((self.path / "checkpoints").glob("step_*/policy"), reverse=True)]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise ConfigError(f"{self.path} has saved no model yet. Fix: let it finish, or save_every=10")
        return found

    def _facts(self) -> tuple[str, list[tuple[str, str]]]:
        record = self.record
        done = record.metrics[-1]["step"] + 1 if record.metrics else 0
        title = f"{record.info.get('algorithm', '?')}: {record.info.get('status')} after {done} steps"
        values = [(name, record.series(name)[1]) for name in LAST]
        return title, [
            (name, f"{points[0]:.4g} → {points[-1]:.4g}" if len(points) > 1 else f"{points[0]:.4g}")
            for name, points in values
            if points
        ]

    def __repr__(self) -> str:
        title, facts = self._facts()
        return "  ".join([f"<{self.path} | {title}", *(f"| {name} {text}" for name, text in facts)]) + ">"

    def _repr_html_(self) -> str:
        title, facts = self._facts()
        rows = "".join(f"<tr><th>{shown(name)}</th><td>{shown(text)}</td></tr>" for name, text in facts)
        return f"<div><b>{shown(title)}</b> <code>{shown(str(self.path))}</code><table>{rows}</table></div>"


def open_run(path: str | Path) -> FinishedRun:
    """A run folder that is there already, whoever wrote it, also while it is written.

    Raises: ConfigError when there is no run at `path`.
    """
    read_run(Path(path))
    return FinishedRun(Path(path))


def _table(rows: list[dict[str, Any]]) -> Any:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if find_spec("pandas") is None:
        return {name: [row.get(name) for row in rows] for name in columns}
    import pandas  # noqa: PLC0415  # slow to load, and nobody has to have it

    return pandas.DataFrame(rows, columns=columns)
