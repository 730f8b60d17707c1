"""Runs of other libraries, read only: TRL's tables of completions with its trainer_state.json, verl's dumps by step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from statistics import fmean, pstdev
from time import time
from typing import Any

import pyarrow
from pyarrow import parquet

from oneloop.errors import DataError
from oneloop.lab.columns import Index, columns_of
from oneloop.lab.folders import Folder
from oneloop.lab.lines import Page, parsed
from oneloop.lab.source import Appended, Details, Line, Source, Table
from oneloop.lab.status import Status, ago

_TRL, _VERL = re.compile(r"completions_(\d{1,12})\.parquet"), re.compile(r"(\d{1,12})\.jsonl")
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")
LARGEST = 2**28
"""Bytes of one table or dump."""
LATELY = 600.0
"""Seconds since the last file, up to which a run without a status counts as running."""
COMMON = (
    "no ratios and no values of single tokens: the pages of clip, tokens and diff keep to their toys",
    "no status and no alerts: whether it runs is guessed from the age of its files",
    "no configuration: settings cannot be compared",
    "no memory figures",
)


def kind_of(path: Path) -> Callable[[Folder], Source] | None:
    """What wrote a folder, by its files; None for a folder that holds no run."""
    folder = Folder(path)
    if any(_TRL.fullmatch(name) for name in folder.names("completions")):
        return TrlRun
    if any(_VERL.fullmatch(name) for name in folder.names()):
        return VerlRun
    return None


class Rows(Index):
    """An index of rows that are made from several files.

    Args:
        signature: changes when the files do.
        made: pieces of the rows.
    """

    def __init__(self, folder: Folder, signature: Callable[[], Any], made: Callable[[], Iterator[list[dict]]]) -> None:
        super().__init__(folder)
        self._signature, self._made, self._of = signature, made, None
        self.held: list[dict[str, Any]] = []

    def _changed(self) -> bool:
        now = self._signature()
        if now == self._of:
            return False
        self._start_over()
        self._of, self.held, self.total = now, [], 1
        return True

    def _read_on(self) -> None:
        for rows in self._made():
            with self._lock:
                self.columns.append(columns_of(rows), len(rows))
                self.held += rows
        self.total = self.offset = len(self.held)


class ForeignRun:
    """What TRL's and verl's runs have in common: files by step, counted from 1, and metrics made of them."""

    kind: Any
    lacks: Sequence[str] = ()

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._index = Rows(folder, self._files, self._metrics)
        self._of_step: dict[int, tuple[Any, dict[str, Any]]] = {}

    def line(self) -> Line:
        files = self._files()
        if not files:
            return Line(status=Status("gone", "gone: its files are not there any more"))
        self._index.refresh(0.2)
        rows = self._index.held
        spark = [row["reward"] for row in rows if isinstance(row.get("reward"), int | float)]
        done, total = self._progress()
        return Line(
            status=self._status(files, done, total),
            steps_done=done,
            steps_total=total,
            heartbeat=max(facts[-1] for _, facts in files) / 1e9,
            spark=[spark[place * (len(spark) - 1) // 59] for place in range(60)] if len(spark) > 60 else spark,
            spark_name="reward" if spark else None,
        )

    def details(self) -> Details:
        return Details(lacks=[*self.lacks, *COMMON])

    def index(self) -> Index:
        return self._index

    def page(self, which: Appended, offset: int, mark: str) -> Page:
        """Here an offset counts rows, for there is no one file."""
        self._index.refresh(0.5)
        rows = self._index.held if which == "metrics" else self._evaluations() if which == "evaluations" else []
        reset = offset > len(rows)
        start = 0 if reset else offset
        chosen = rows[start : start + 2000]
        return Page(chosen, start + len(chosen), reset, "", 0)

    def steps(self, table: Table) -> list[int]:
        return sorted(self._places()) if table == "rollouts" else []

    def table(self, table: Table, step: int, columns: Sequence[str] | None = None) -> pyarrow.Table:
        if step not in self.steps(table):
            raise KeyError(step)
        found = self._rollouts(step)
        return found if columns is None else found.select([name for name in columns if name in found.column_names])

    def _files(self) -> list[tuple[int, Any]]:
        """Steps with what changes when their file does."""
        facts = [(step, self.folder.facts(*place)) for step, place in sorted(self._places().items())]
        return [(step, fact) for step, fact in facts if fact is not None]

    def _places(self) -> dict[int, tuple[str, ...]]:
        """The file of each step. They count from 1; steps here are indices, from 0."""
        numbered = {
            int(found[1]): name for name in self.folder.names(*self._below) if (found := self._pattern.fullmatch(name))
        }
        first = min(min(numbered, default=0), 1)
        return {number - first: (*self._below, name) for number, name in numbered.items()}

    _below: tuple[str, ...] = ()
    _pattern: re.Pattern[str]

    def _rollouts(self, step: int) -> pyarrow.Table:
        raise NotImplementedError

    def _progress(self) -> tuple[int, int | None]:
        return max((step for step, _ in self._files()), default=-1) + 1, None

    def _status(self, files: list[tuple[int, Any]], done: int, total: int | None) -> Status:
        silent = max(time() - max(facts[-1] for _, facts in files) / 1e9, 0.0)
        if total and done >= total:
            return Status("finished", f"finished: all {total} steps are there")
        words = (
            f"step {done}{f' of {total}' if total else ''}, last written {ago(silent)}; {self.kind} records no status"
        )
        return Status("running" if silent < LATELY else "stopped", words)

    def _evaluations(self) -> list[dict[str, Any]]:
        return []

    def _metrics(self) -> Iterator[list[dict[str, Any]]]:
        """Of the completions alone: the mean reward and the dead groups of each step."""
        for step, facts in sorted(self._files()):
            if self._of_step.get(step, (None,))[0] != facts:
                try:
                    self._of_step[step] = (facts, _summed(step, self._rollouts(step)))
                except (OSError, ValueError):
                    continue  # whoever looks at the step's completions hears why
            yield [self._of_step[step][1]]


class TrlRun(ForeignRun):
    """`completions/completions_00005.parquet` beside trainer_state.json, which TRL's trainers write."""

    kind = "trl"
    lacks = (
        "the weights of several reward functions: reward is their plain sum here",
        "the lengths of completions in tokens, and why they ended",
    )
    _below, _pattern = ("completions",), _TRL

    def _rollouts(self, step: int) -> pyarrow.Table:
        place = self._places()[step]
        try:
            table = parquet.read_table(BytesIO(self.folder.read(*place, most=LARGEST)))
        except pyarrow.ArrowException as error:
            raise DataError(f"{'/'.join(place)} cannot be read ({error})") from error
        rows = table.to_pylist()
        parts = [
            n for n in table.column_names if n not in ("step", "advantage") and _is_number(table.schema.field(n).type)
        ]
        for row in rows:
            values = [row[part] for part in parts if row[part] is not None]
            row["reward"] = sum(values) if values and "reward" not in parts else row.get("reward")
            row["step"] = step
        return normal(rows, [part for part in parts if part != "reward"])

    def _state(self) -> dict[str, Any]:
        """trainer_state.json of the folder, or of its newest checkpoint."""
        try:
            folders = [entry.name for entry in self.folder.path.iterdir() if _CHECKPOINT.fullmatch(entry.name)]
        except OSError:
            folders = []
        newest = sorted(folders, key=lambda name: -int(name.partition("-")[2]))[:1]
        for place in [("trainer_state.json",), *((name, "trainer_state.json") for name in newest)]:
            try:
                state = json.loads(self.folder.read(*place))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(state, dict):
                return state
        return {}

    def _history(self) -> list[dict[str, Any]]:
        """What was logged, a row a step. Its `eval_` names are written as ours are."""
        rows: dict[int, dict[str, Any]] = {}
        history = self._state().get("log_history")
        for entry in history if isinstance(history, list) else []:
            if not isinstance(entry, dict) or not isinstance(step := entry.get("step"), int):
                continue
            row = rows.setdefault(max(step - 1, 0), {"step": max(step - 1, 0)})
            values = {str(name): value for name, value in entry.items() if name != "step" and _finite(value)}
            row |= {f"eval/{name[5:]}" if name.startswith("eval_") else name: value for name, value in values.items()}
        return [rows[step] for step in sorted(rows)]

    def _progress(self) -> tuple[int, int | None]:
        state, (done, _) = self._state(), super()._progress()
        total, reached = state.get("max_steps"), state.get("global_step")
        reached = reached if isinstance(reached, int) else 0
        return max(done, reached), total if isinstance(total, int) and total > 0 else None

    def _evaluations(self) -> list[dict[str, Any]]:
        rows = self._history()
        return [
            {"done": row["step"] + 1, **{name: value for name, value in row.items() if name.startswith("eval/")}}
            for row in rows
            if any(name.startswith("eval/") for name in row)
        ]

    def _metrics(self) -> Iterator[list[dict[str, Any]]]:
        rows = self._history()
        if rows:
            yield rows
        else:
            yield from super()._metrics()


class VerlRun(ForeignRun):
    """`{step}.jsonl` with input, output, gts, score and step, which verl writes for `trainer.rollout_data_dir`."""

    kind = "verl"
    lacks = ("advantages, the lengths of completions in tokens, and why they ended", "metrics other than the scores")
    _pattern = _VERL

    def _rollouts(self, step: int) -> pyarrow.Table:
        (name,) = self._places()[step]
        lines = [line for line in self.folder.read(name, most=LARGEST).split(b"\n") if line.strip()]
        rows = [row for line in lines if (row := parsed(line)) is not None]
        if not rows:
            raise DataError(f"{name} cannot be read (none of its {len(lines)} lines is a JSON object)")
        named = [
            {
                **row,
                "step": step,
                "prompt": row.get("input"),
                "completion": row.get("output"),
                "reward": row.get("score"),
            }
            for row in rows
        ]
        for row in named:
            for key in ("input", "output", "score"):
                row.pop(key, None)
        parts = [k for k in named[0] if k not in ("step", "reward", "prompt", "completion") and _finite(named[0][k])]
        return normal(named, parts)


def normal(rows: Sequence[dict[str, Any]], parts: Sequence[str]) -> pyarrow.Table:
    """Rows of others as a table of rollouts. Equal prompts of a step make a group.

    Args:
        parts: the columns that are numbers of rewards; other columns that are no words become text.
    """
    groups: dict[str, int] = {}
    counts: dict[int, int] = {}
    made: dict[str, list[Any]] = {"group": [], "sample": []}
    prompts = [_words(row.get("prompt")) or "" for row in rows]
    for prompt in prompts:
        group = groups.setdefault(prompt, len(groups))
        made["group"].append(group)
        made["sample"].append(counts.get(group, 0))
        counts[group] = counts.get(group, 0) + 1
    columns: dict[str, Any] = {
        "step": [row["step"] for row in rows],
        "prompt": pyarrow.array(prompts, pyarrow.string()),
        "completion": pyarrow.array([_words(row.get("completion")) or "" for row in rows], pyarrow.string()),
        **{part: _numbers(rows, part) for part in parts},
        "reward": _numbers(rows, "reward"),
        "advantage": _numbers(rows, "advantage"),
        **made,
    }
    known = {*columns, "length", "stop", "kept"}
    for name in dict.fromkeys(str(name) for row in rows for name in row):
        if name not in known:
            columns[name] = pyarrow.array([_words(row.get(name)) for row in rows], pyarrow.string())
    return pyarrow.table(columns)


def _numbers(rows: Sequence[dict[str, Any]], name: str) -> Any:
    return pyarrow.array([float(row[name]) if _finite(row.get(name)) else None for row in rows], pyarrow.float64())


def _words(value: Any) -> str | None:
    """Text as it is; a conversation, or whatever else stands there, as JSON."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        return False


def _is_number(kind: Any) -> bool:
    return pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)


def _summed(step: int, table: pyarrow.Table) -> dict[str, Any]:
    rewards, groups = table.column("reward").to_pylist(), table.column("group").to_pylist()
    by_group: dict[int, list[float]] = {}
    for group, reward in zip(groups, rewards, strict=True):
        if reward is not None:
            by_group.setdefault(group, []).append(reward)
    scored = [reward for found in by_group.values() for reward in found]
    if not scored:
        return {"step": step}
    several = [found for found in by_group.values() if len(found) > 1]
    dead = (
        {"frac_reward_zero_std": fmean(max(f) == min(f) for f in several), "num_groups": len(by_group)}
        if several
        else {}
    )
    return {"step": step, "reward": fmean(scored), "reward_std": pstdev(scored), **dead}
