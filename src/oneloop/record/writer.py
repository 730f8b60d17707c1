"""A run's folder while it is written: append-only lines, one process at a time, cut back on resume."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from time import monotonic, time
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakSet

from oneloop.errors import ConfigError, DataError
from oneloop.record.atomic import write_text
from oneloop.record.lines import Lines, read_lines
from oneloop.record.steps import StepTables
from oneloop.record.table import rollout_table
from oneloop.types import Trajectory

if TYPE_CHECKING:  # slow to load
    import pyarrow

HEARTBEAT_SECONDS = 10.0
METRICS, EVENTS, MEMORY, EVALUATIONS = "metrics.jsonl", "events.jsonl", "memory.jsonl", "eval.jsonl"
RATIOS = "ratios.jsonl"
TABLES: dict[str, int | None] = {"rollouts": None, "ratios": 64 * 2**20, "tokens": 64 * 2**20, "pairs": 64 * 2**20}
"""Folders of tables by step, and the most bytes of each; None: every step's completions stay."""
_BEFORE_A_STEP = {
    "run.json", "config.toml", ".lock", "objective.txt", METRICS, EVENTS, MEMORY, EVALUATIONS, RATIOS, "start",
    "arrivals", "skipped",
    *TABLES,
}  # fmt: skip
"""What a run may have written when its first step is not done."""
HELD_OUT = "eval/"
"""How the name of every measure of held-out data begins."""

_log = logging.getLogger(__name__)


class RunFolder:
    """Implements `oneloop.ports.Recorder`, and keeps run.json. Open it with `RunFolder.open`."""

    keeps = True
    """Whether what it is told is written; `Elsewhere` leaves that to another process."""

    def __init__(self, path: Path, lock: IO[str], info: dict[str, Any]) -> None:
        self.path = path
        self._lock, self._info = lock, info
        self._metrics, self._events, self._memory = (Lines(path / name) for name in (METRICS, EVENTS, MEMORY))
        self._evaluations = Lines(path / EVALUATIONS)
        # only some runs have one
        self._ratios = Lines(path / RATIOS) if (path / RATIOS).exists() else None
        self._tables = {name: StepTables(path / name, budget) for name, budget in TABLES.items()}
        self.evaluated: tuple[int, dict[str, float]] | None = None
        self._last_step = self._metrics.last_step()
        self._beat = monotonic()
        self._write_info()

    @classmethod
    def open(cls, path: Path, *, resume: bool, config_text: str, facts: Mapping[str, Any]) -> RunFolder:
        """Create a run folder, or take up the one that is there.

        Raises: ConfigError when it holds a run and `resume` is false, or when another process is writing to it.
        """
        _check_place(path)
        path.mkdir(parents=True, exist_ok=True)
        # the lock comes before the question whether there is a run: a living one must never be told "rm -r"
        lock = _locked(path)
        try:
            if not resume:
                _check_no_run(path)
                _clear_untrained(path)
            info = _facts(facts) | {"checkpoint": _checkpoint(path)}
            if not (path / "run.json").exists():
                write_text(path / "run.json", json.dumps(info | {"status": "starting"}, indent=1))
            if not (path / "config.toml").exists():
                write_text(path / "config.toml", config_text)
            return cls(path, lock, info)
        except BaseException:
            lock.close()
            raise

    def config_text(self) -> str:
        """config.toml as the run's first start wrote it."""
        return (self.path / "config.toml").read_text(encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line in metrics.jsonl, and one in eval.jsonl for what it says of held-out data.

        A value that is not finite is written as null.

        Raises: RuntimeError for a step that was written already; OSError when the line cannot be written.
        """
        if step <= self._last_step:
            raise RuntimeError(f"step {step} was written already; the last one is {self._last_step}")
        if reserved := values.keys() & {"step", "time"}:
            raise RuntimeError(f"a metric cannot be named {sorted(reserved)[0]!r}: the line has that column already")
        self._metrics.append({"step": step, "time": time(), **_finite(values)})
        self._last_step = step
        if measured := {name: value for name, value in values.items() if name.startswith(HELD_OUT)}:
            self.evaluation(step + 1, measured)
        if monotonic() - self._beat > HEARTBEAT_SECONDS:
            self._beat = monotonic()
            try:
                self._write_info()
            except OSError as error:
                self._alert(step, "A_HEARTBEAT", f"run.json was not updated: {error}", "free disk space")

    def evaluation(self, done: int, values: Mapping[str, float]) -> None:
        """One line in eval.jsonl: measures of held-out data after `done` finished steps; 0 is before the first."""
        self._evaluations.append({"done": done, "time": time(), **_finite(values)})
        self.evaluated = (done, dict(values))

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None:
        """One table of completions. That it cannot be written ends no run: the metrics are the record."""
        if not items:
            return
        what = "the completions of this step were not written"
        try:
            self._tables["rollouts"].write(step, rollout_table(step, items))
        except (OSError, DataError) as error:
            self._alert(step, "A_ROLLOUTS", f"{what}: {error}", f"free disk space at {self.path}")
        except (ValueError, TypeError) as error:
            # pyarrow's way to say that a value does not fit its column
            fix = "return a number or None for every part of a reward"
            self._alert(step, "A_ROLLOUTS", f"{what}: {type(error).__name__}: {error}", fix)

    def traced(self, step: int, tables: Mapping[str, pyarrow.Table], ratios: Mapping[str, Any] | None) -> None:
        """What was seen inside the step's updates: tables by the name of their folder, and a line of ratios.jsonl.

        Like a table of completions, it ends no run.
        """
        try:
            if ratios is not None:
                self._ratios = self._ratios or Lines(self.path / RATIOS)
                self._ratios.append({"step": step, **ratios})
            for name, table in tables.items():
                self._tables[name].write(step, table)
        except (OSError, DataError) as error:
            what = "what the updates saw was not written"
            self._alert(step, "A_TRACE", f"{what}: {error}", f"free disk space at {self.path}, or --no-trace")

    def skipped(self, step: int, name: str, text: str) -> None:
        """A file of skipped/, about a batch of which no optimizer step was made. It ends no run."""
        try:
            (self.path / "skipped").mkdir(exist_ok=True)
            write_text(self.path / "skipped" / name, text)
        except OSError as error:
            self._alert(step, "A_UNSOUND", f"skipped/{name} was not written: {error}", "free disk space")

    def event(self, step: int, code: str, text: str, fix: str = "") -> None:
        """One line in events.jsonl: an alert, or information where the code begins with I_."""
        level = "info" if code.startswith("I_") else "alert"
        self._events.append({"step": step, "time": time(), "level": level, "code": code, "text": text, "fix": fix})

    def memory(self, step: int, values: Mapping[str, int]) -> None:
        """One line in memory.jsonl, in bytes. Like a table of completions, it ends no run."""
        try:
            self._memory.append({"step": step, "time": time(), **values})
        except OSError as error:
            self._alert(step, "A_MEMORY", f"memory.jsonl was not written: {error}", "free disk space")

    def position(self) -> dict[str, int]:
        """How far the append-only files reach, for a checkpoint."""
        return {name: file.size() for name, file in self._appended().items()}

    def rewind(self, position: Mapping[str, int], step: int) -> None:
        """Cut off what was written after a checkpoint, and the tables of steps from `step` on.

        Raises: CheckpointError when a file is shorter than it was then: that run's record is lost.
        """
        for name, file in self._appended().items():
            file.check(position.get(name, 0))
        for name, file in self._appended().items():
            file.cut(position.get(name, 0))
        for table in self._tables.values():
            table.cut(step)
        self._last_step = step - 1

    @property
    def checkpoint(self) -> int:
        """Finished steps of the newest checkpoint that was ever saved; 0: none was. It outlives the checkpoints."""
        return int(self._info["checkpoint"])

    def saved(self, done: int) -> None:
        """Note that a checkpoint of so many finished steps stands."""
        self._info["checkpoint"] = done
        self._write_info()

    def finish(self, status: str, failure: str | None = None, exit_code: int | None = None) -> None:
        """Write how the run ended: finished, failed or stopped, and what its process answers with."""
        self._info |= {"status": status, "failure": failure, "exit_code": exit_code}
        self._write_info()

    def close(self) -> None:
        """Release the lock, whatever happens to the other files."""
        with ExitStack() as stack:
            for file in (self._lock, *self._appended().values()):
                stack.callback(file.close)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _appended(self) -> dict[str, Lines]:
        always = {
            "metrics": self._metrics,
            "events": self._events,
            "memory": self._memory,
            "evaluations": self._evaluations,
        }
        return always if self._ratios is None else {**always, "ratios": self._ratios}

    def _alert(self, step: int, code: str, text: str, fix: str) -> None:
        """An event about a disk that may be full, so that the event may fail too."""
        try:
            self.event(step, code, text, fix)
        except OSError:
            _log.warning("%s step %d: %s. Fix: %s", code, step, text, fix)

    def _write_info(self) -> None:
        self._info["heartbeat"] = time()
        write_text(self.path / "run.json", json.dumps(self._info, indent=1))


def check_out(path: Path, *, resume: bool, overwrite: bool) -> None:
    """What `RunFolder.open` would refuse, before anything is loaded or written.

    Raises: ConfigError.
    """
    _check_place(path)
    if (path / "run.json").exists():
        _locked(path).close()
        if not resume and not overwrite:
            _check_no_run(path)


def _check_place(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path} is a file; wanted a folder to create")
    if _holds_other_files(path):
        raise ConfigError(f"--out {path} holds files, but no run. Fix: a folder that does not exist yet")


def _check_no_run(path: Path) -> None:
    if (path / "run.json").exists() and not _untrained(path):
        raise ConfigError(
            f"--out {path} holds a run already. Fix: --resume to go on with it, another --out, or --overwrite"
        )


def _untrained(path: Path) -> bool:
    """A run that ended before its first step was done: no step is recorded, and nothing is saved that one could miss.

    It must not block the corrected command. Any file that such a run does not write makes it a run to keep.
    """
    if any(entry.name not in _BEFORE_A_STEP for entry in path.iterdir()):
        return False
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        recorded = read_lines(path / METRICS)
    except (OSError, ValueError):
        return False
    return info.get("status") in ("starting", "running", "failed", "stopped") and not info["checkpoint"] + len(recorded)


def _clear_untrained(path: Path) -> None:
    """Of a run that trained nothing; the caller holds the lock and has asked."""
    for name in _BEFORE_A_STEP - {".lock"}:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if isfinite(value) else None for name, value in values.items()}


def remove_run(path: Path) -> None:
    """Delete a run folder, and nothing that is not one."""
    if not path.exists():
        return
    if not (path / "run.json").is_file():
        raise ConfigError(f"{path} is not a run folder (no run.json); it is left as it is")
    with _locked(path):
        shutil.rmtree(path)


def _checkpoint(path: Path) -> int:
    """What an earlier process noted with `saved`."""
    info = path / "run.json"
    return int(json.loads(info.read_text(encoding="utf-8")).get("checkpoint", 0)) if info.exists() else 0


_held: WeakSet[IO[str]] = WeakSet()


def _let_go() -> None:
    """A fork shares its parent's locks, and would keep them when the parent is gone."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_let_go)


def _locked(path: Path) -> IO[str]:
    """The kernel drops the lock when its process ends, in whatever way."""
    lock = (path / ".lock").open("a")
    _held.add(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigError(
            f"--out {path} is being written by {_owner(path)}. Fix: wait for it, stop it, or another --out"
        ) from None
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"--out {path} cannot be locked ({error}). Fix: an --out on a file system with flock, such as a local disk"
        ) from error
    return lock


def _owner(path: Path) -> str:
    """Who holds the lock, as run.json says."""
    if not (path / "run.json").exists():
        return "another process, which has only just started"
    info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    since = datetime.fromtimestamp(info["started"], UTC).isoformat(sep=" ", timespec="seconds")
    return f"process {info['pid']} on {info['host']} since {since}"


def _holds_other_files(path: Path) -> bool:
    """Files, but no run. A lock or a half-written run.json are what a process killed at its start leaves behind."""
    if not path.is_dir() or (path / "run.json").exists():
        return False
    return any(entry.name != ".lock" and not entry.name.startswith(".tmp-run.json-") for entry in path.iterdir())


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "running",
        "failure": None,
        "exit_code": None,
        **facts,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time(),
        "argv": sys.argv,
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("oneloop", "torch", "transformers", "tokenizers", "safetensors")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
