"""A run folder of oneloop."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from time import time
from typing import Any, Literal

import pyarrow

from oneloop.errors import DataError
from oneloop.lab.columns import Index
from oneloop.lab.folders import Folder
from oneloop.lab.lines import Page, page, sampled, tail
from oneloop.lab.source import TABLES, Appended, Details, Line, Table
from oneloop.lab.status import Status, status_of
from oneloop.record.steps import StepTables
from oneloop.secrets import redacted

FILES: dict[Appended, str] = {
    "metrics": "metrics.jsonl",
    "events": "events.jsonl",
    "evaluations": "eval.jsonl",
    "memory": "memory.jsonl",
    "ratios": "ratios.jsonl",
}
SPARKS = ("reward", "rewards/accuracies", "loss")
"""What the small picture of a run shows: the first of these that it has."""
POINTS = 60
LACKS: dict[Table, str] = {
    "rollouts": "no completions: it learns from fixed data, or its first step is not done",
    "ratios": "no ratios of tokens: methods without a ratio have none, nor have runs with --no-trace",
    "tokens": "no values of single tokens: it ran with --no-trace, or its first step is not done",
    "pairs": "no pairs: only preference methods have them",
}
FROM_CONFIG = (
    "group_size",
    "epochs",
    "minibatch",
    "prompts_per_step",
    "temperature",
    "learning_rate",
    "max_new_tokens",
)


class OwnRun:
    """Implements `oneloop.lab.source.Source` for the folder that docs/run-folder.md describes."""

    kind: Literal["oneloop"] = "oneloop"

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._index = Index(folder)
        self._seen: dict[str, tuple[Any, Any]] = {}

    def line(self) -> Line:
        try:
            info = self._info()
        except (OSError, DataError) as error:
            return Line(status=_unreadable(self.folder, error))
        name, spark = self._unchanged("metrics.jsonl", self._spark) or (None, [])
        done = self._unchanged("metrics.jsonl", self._last)
        return Line(
            status=Status(*redacted(list(status_of(info, time())))),
            algorithm=_text(info.get("algorithm")),
            model=redacted(_text(info.get("model"))),
            seed=_whole(info.get("seed")),
            steps_done=done or 0,
            steps_total=_whole(info.get("steps")),
            started=_number(info.get("started")),
            heartbeat=_number(info.get("heartbeat")),
            alerts=self._unchanged("events.jsonl", self._alerts) or 0,
            spark=spark,
            spark_name=name,
        )

    def details(self) -> Details:
        try:
            info = self._info()
        except (OSError, DataError):
            info = {}
        config = self._config()
        explain = {name: config.get(name) for name in FROM_CONFIG}
        explain |= info["explain"] if isinstance(info.get("explain"), dict) else {}
        shown = redacted(info)
        return Details(
            info=shown if isinstance(shown, dict) else {},
            config=_settings(config, info.get("changed")),
            objective=redacted(self.folder.text("objective.txt")),
            lacks=[LACKS[name] for name in TABLES if not self.steps(name)],
            explain=redacted(explain),
        )

    def index(self) -> Index:
        return self._index

    def page(self, which: Appended, offset: int, mark: str) -> Page:
        return page(self.folder, FILES[which], offset, mark)

    def steps(self, table: Table) -> list[int]:
        return self._tables(table).steps()

    def table(self, table: Table, step: int, columns: Sequence[str] | None = None) -> pyarrow.Table:
        return self._tables(table).table(step, columns)

    def _tables(self, name: Table) -> StepTables:
        if self.folder.has_others(name):
            raise DataError(f"{name}/ is a link, or holds a link or a pipe; only plain files are read")
        return StepTables(self.folder.path / name)

    def _info(self) -> dict[str, Any]:
        try:
            info = json.loads(self.folder.read("run.json", most=2**20))
        except (ValueError, RecursionError) as error:
            raise DataError(f"run.json is damaged ({error})") from error
        if not isinstance(info, dict):
            raise DataError("run.json is damaged (no table)")
        return info

    def _config(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.folder.text("config.toml") or "")
        except (ValueError, RecursionError):
            return {}

    def _unchanged(self, name: str, read: Any) -> Any:
        """What `read` says of a file, asked again when the file has changed; None where there is none."""
        facts = self.folder.facts(name)
        if facts is None:
            return None
        key = f"{name} {read.__name__}"
        if self._seen.get(key, (None, None))[0] != facts:
            with self.folder.open(name) as file:
                self._seen[key] = (facts, read(file))
        return self._seen[key][1]

    def _last(self, file: Any) -> int:
        row = tail(file)
        step = _whole(row.get("step")) if row else None
        return 0 if step is None else step + 1

    def _spark(self, file: Any) -> tuple[str | None, list[float | None]]:
        rows = sampled(file, POINTS)
        name = next((name for name in SPARKS if any(_number(row.get(name)) is not None for row in rows)), None)
        return name, [_number(row.get(name)) for row in rows if name in row]

    def _alerts(self, file: Any) -> int:
        return sum(b'"level": "alert"' in line for line in file)


def _unreadable(folder: Folder, error: Exception) -> Status:
    if not folder.exists():
        return Status("gone", "gone: the folder is not there any more")
    if isinstance(error, FileNotFoundError):
        return Status("unreadable", "it has no run.json; its first line may be about to be written")
    return Status("unreadable", f"run.json cannot be read: {redacted(str(error))}")


def _settings(config: Mapping[str, Any], changed: Any) -> list[dict[str, Any]]:
    """Those that are not the default first."""
    own = changed if isinstance(changed, dict) else {}
    rows = [
        {
            "name": name,
            "value": _words(redacted(value, name)),
            "default": _words(redacted(own.get(name, value), name)),
            "changed": name in own,
        }
        for name, value in config.items()
    ]
    return sorted(rows, key=lambda row: not row["changed"])


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, float) or _whole(value) is not None else None
