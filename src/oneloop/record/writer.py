"""A run's folder while it is written: append-only lines, one process at a time, cut back on resume."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from math import isfinite
from pathlib import Path
from time import monotonic, time
from typing import IO, TYPE_CHECKING, Any

import tomli_w

from oneloop.errors import CheckpointError, ConfigError, DataError, DiskError
from oneloop.record.atomic import half_written, write_text
from oneloop.record.lines import Lines, Read
from oneloop.record.lock import locked
from oneloop.record.place import check_own, check_run_place, holds_run
from oneloop.record.reader import EVALUATIONS, EVENTS, MEMORY, METRICS, info_of
from oneloop.record.started import started
from oneloop.record.steps import StepTables
from oneloop.record.table import rollout_table
from oneloop.secrets import redacted
from oneloop.types import Trajectory

if TYPE_CHECKING:  # slow to load
    import pyarrow

HEARTBEAT_SECONDS = 10.0
RESERVE, RESERVED = ".reserve", 32 << 10
"""A file of so many bytes that makes way for the last words of a run on a full disk."""
RATIOS = "ratios.jsonl"
TABLES: dict[str, int | None] = {"rollouts": None, "ratios": 64 * 2**20, "tokens": 64 * 2**20, "pairs": 64 * 2**20}
"""Folders of tables by step, and the most bytes of each; None: every step's completions stay."""
_BEFORE_A_STEP = {
    "run.json", "config.toml", ".lock", RESERVE, "objective.txt", METRICS, EVENTS, MEMORY, EVALUATIONS, RATIOS,
    "start", "arrivals", "skipped", "best", "tensorboard", "wandb", "wandb.json", "vllm.log",
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
        self._self = _identity(os.fstat(lock.fileno()))
        self._metrics, self._events, self._memory = (Lines(path / name) for name in (METRICS, EVENTS, MEMORY))
        self._evaluations = Lines(path / EVALUATIONS)
        # only some runs have one
        self._ratios = Lines(path / RATIOS) if (path / RATIOS).exists() else None
        self._tables = {name: StepTables(path / name, budget) for name, budget in TABLES.items()}
        self.evaluated: tuple[int, dict[str, float]] | None = None
        self._last_step = self._metrics.last_step()
        self._beat = self._stepped = self._opened_at = monotonic()
        (path / RESERVE).write_bytes(os.urandom(RESERVED))  # no zeros: some disks keep no room for them
        self._write_info()

    @classmethod
    def open(cls, path: Path, *, resume: bool, config_text: str, facts: Mapping[str, Any]) -> RunFolder:
        """Create a run folder, or take up the one that is there.

        Raises: ConfigError when it holds a run and `resume` is false, or when another process is writing to it;
            DiskError when it cannot be written.
        """
        check_run_place(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            return cls._opened(path, resume, config_text, facts)
        except OSError as error:
            if isinstance(error, DiskError):
                raise
            raise DiskError(
                f"--out {path} cannot be written: {error.strerror}. Fix: make room, or another --out"
            ) from error

    @classmethod
    def _opened(cls, path: Path, resume: bool, config_text: str, facts: Mapping[str, Any]) -> RunFolder:
        # the lock comes before the question whether there is a run: a living one must never be told "rm -r"
        lock = locked(path)
        try:
            check_own(path)
            if not resume:
                _check_no_run(path)
            if not resume or untrained(path):
                _clear_untrained(path)
            info = started(facts) | {"checkpoint": _checkpoint(path)}
            if not (path / "run.json").exists():
                write_text(path / "run.json", json.dumps(info | {"status": "starting"}, indent=1))
            if not (path / "config.toml").exists():
                # by value: hiding a part of the text could take a quote or a backslash with it
                write_text(path / "config.toml", tomli_w.dumps(redacted(tomllib.loads(config_text))))
            return cls(path, lock, info)
        except BaseException:
            lock.close()
            raise

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line in metrics.jsonl, and one in eval.jsonl for what it says of held-out data.

        A value that is not finite is written as null.

        `time/step` is the seconds since the line before, or since training began: of a clock that nobody sets.

        Raises: RuntimeError for a step that was written already; DiskError when the line cannot be written, or the
            file is not there any more.
        """
        if step <= self._last_step:
            raise RuntimeError(f"step {step} was written already; the last one is {self._last_step}")
        if reserved := values.keys() & {"step", "time"}:
            raise RuntimeError(f"a metric cannot be named {sorted(reserved)[0]!r}: the line has that column already")
        now = monotonic()
        self._metrics.append({"step": step, "time": time(), **_finite(values), "time/step": now - self._stepped})
        self._last_step, self._stepped = step, now
        if measured := {name: value for name, value in values.items() if name.startswith(HELD_OUT)}:
            self.evaluation(step + 1, measured)
        if now - self._beat > HEARTBEAT_SECONDS:
            self._beat = now
            self._try_info(step)

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
            self.event(step, "A_ROLLOUTS", f"{what}: {error}", f"free disk space at {self.path}")
        except (ValueError, TypeError) as error:
            # pyarrow's way to say that a value does not fit its column
            fix = "return a number or None for every part of a reward"
            self.event(step, "A_ROLLOUTS", f"{what}: {type(error).__name__}: {error}", fix)

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
            self.event(step, "A_TRACE", f"{what}: {error}", f"free disk space at {self.path}, or --no-trace")

    def skipped(self, step: int, name: str, text: str) -> None:
        """A file of skipped/, about a batch of which no optimizer step was made. It ends no run."""
        try:
            (self.path / "skipped").mkdir(exist_ok=True)
            write_text(self.path / "skipped" / name, text)
        except OSError as error:
            self.event(step, "A_UNSOUND", f"skipped/{name} was not written: {error}", "free disk space")

    def event(self, step: int, code: str, text: str, fix: str = "") -> None:
        """One line in events.jsonl: an alert, or information where the code begins with I_.

        Where it cannot be written, a warning says it: on a full disk an alert about that disk must not end the run.
        """
        level = "info" if code.startswith("I_") else "alert"
        row = {"step": step, "time": time(), "level": level, "code": code, "text": redacted(text), "fix": redacted(fix)}
        try:
            self._events.append(row)
        except OSError:
            _log.warning("%s step %d: %s. Fix: %s", code, step, row["text"], row["fix"])

    def memory(self, step: int, values: Mapping[str, int]) -> None:
        """One line in memory.jsonl, in bytes. Like a table of completions, it ends no run."""
        try:
            self._memory.append({"step": step, "time": time(), **values})
        except OSError as error:
            self.event(step, "A_MEMORY", f"memory.jsonl was not written: {error}", "free disk space")

    def position(self) -> dict[str, int]:
        """How far the append-only files reach, for a checkpoint."""
        return {name: file.size() for name, file in self._appended().items()}

    def rewind(self, position: Mapping[str, int], step: int, *, accept_loss: bool = False) -> list[str]:
        """Cut off what was written after a checkpoint, and the tables of steps from `step` on.

        Args:
            accept_loss: of a file that lost lines, keep what it has of the steps before.

        Returns: what of the record is lost, in words.

        Raises: CheckpointError when a file is shorter than it was then: that run's record is lost.
        """
        if position.get("ratios") and self._ratios is None:  # it is gone: empty, it is short
            self._ratios = Lines(self.path / RATIOS)
        short = {}
        for name, file in self._appended().items():
            try:
                file.check(position.get(name, 0), *_before(name, step))
            except CheckpointError as error:
                if not accept_loss:
                    raise
                short[name] = f"{str(error).partition(' Fix:')[0]}; the run goes on without them"
        for name, file in self._appended().items():
            if name in short:
                file.cut_where(*_before(name, step))
            else:
                file.cut(position.get(name, 0))
        for table in self._tables.values():
            table.cut(step)
        self._last_step, self._stepped = step - 1, monotonic()
        return [*short.values(), *filter(None, (file.broken() for file in self._appended().values()))]

    @property
    def checkpoint(self) -> int:
        """Finished steps of the newest checkpoint that was ever saved; 0: none was. It outlives the checkpoints."""
        return int(self._info["checkpoint"])

    def saved(self, done: int) -> None:
        """Note that a checkpoint of so many finished steps stands."""
        self._info["checkpoint"] = done
        self._try_info(done)

    def spent_saving(self, seconds: float) -> None:
        """Note how long a try to save took; said with what is written of the run next."""
        before = self._info.get("saving", {"tries": 0, "seconds": 0.0})
        since = monotonic() - self._opened_at
        self._info["saving"] = {"tries": before["tries"] + 1, "seconds": before["seconds"] + seconds, "of": since}

    def fingerprint(self) -> Any:
        """What names the data that the run is trained on."""
        return self._info.get("data")

    def check_there(self) -> None:
        """Raises: DiskError where the folder is not there any more, or another run's lies in its place."""
        try:
            found = _identity(os.stat(self.path / ".lock", follow_symlinks=False))
        except OSError:
            found = None
        if found != self._self:
            what = "is gone: somebody deleted or moved it" if found is None else "is another one: somebody replaced it"
            raise DiskError(f"the run folder {self.path} {what}")

    def check_whole(self) -> None:
        """Raises: DiskError where the folder or the metrics in it are not as this process left them."""
        self.check_there()
        self._metrics.check_there()

    def finish(self, status: str, failure: str | None = None, exit_code: int | None = None) -> None:
        """Write how the run ended: finished, failed or stopped, and what its process answers with."""
        self._info |= {"status": status, "failure": redacted(failure), "exit_code": exit_code}
        try:
            self._write_info()
        except DiskError as error:  # somebody took the folder away: there is no place for last words
            _log.warning("%s", error)
        except OSError:
            (self.path / RESERVE).unlink(missing_ok=True)
            self._try_info(max(self._last_step, 0))

    def close(self) -> None:
        """Release the lock, whatever happens to the other files."""
        with ExitStack() as stack:
            # the last is called first: who takes the lock next makes a reserve of its own
            stack.callback(self._lock.close)
            stack.callback(self._unreserved)
            for file in self._appended().values():
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

    def _unreserved(self) -> None:
        with suppress(OSError):
            self.check_there()
            (self.path / RESERVE).unlink(missing_ok=True)

    def _try_info(self, step: int) -> None:
        try:
            self._write_info()
        except OSError as error:
            self.event(step, "A_HEARTBEAT", f"run.json was not updated: {error}", "free disk space")

    def _write_info(self) -> None:
        self.check_there()
        self._info["heartbeat"] = time()
        write_text(self.path / "run.json", json.dumps(self._info, indent=1))


def check_out(path: Path, *, resume: bool, overwrite: bool) -> None:
    """What `RunFolder.open` would refuse, before anything is loaded or written.

    Raises: ConfigError.
    """
    check_run_place(path)
    if holds_run(path):
        check_own(path)
        locked(path).close()
        if not resume and not overwrite:
            _check_no_run(path)


def _check_no_run(path: Path) -> None:
    if holds_run(path) and not untrained(path):
        raise ConfigError(
            f"--out {path} holds a run already. Fix: --resume to go on with it, another --out, or --overwrite"
        )


def untrained(path: Path) -> bool:
    """A run that ended before its first step was done: no step is recorded, and nothing is saved that one could miss.

    It must not block the corrected command. Any file that such a run does not write makes it a run to keep.
    """
    if any(entry.name not in _BEFORE_A_STEP and not half_written(entry) for entry in path.iterdir()):
        return False
    if any(True for _ in Read(path / METRICS)) or any(row["done"] > 0 for row in Read(path / EVALUATIONS, "done")):
        return False
    info = info_of(path)
    return info.get("status") in ("starting", "running", "failed", "stopped") and not info.get("checkpoint")


def _clear_untrained(path: Path) -> None:
    """Of a run that trained nothing; the caller holds the lock and has asked."""
    for name in _BEFORE_A_STEP - {".lock"}:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def _before(name: str, step: int) -> tuple[str, int]:
    """The column that counts in a file, and what is below there until so many steps are finished."""
    return ("done", step + 1) if name == "evaluations" else ("step", step)


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if isfinite(value) else None for name, value in values.items()}


def remove_run(path: Path) -> None:
    """Delete a run folder, and nothing that is not one: somebody else may have a config.toml, too."""
    if not path.exists():
        return
    if not (path / "run.json").is_file() and not all((path / name).is_file() for name in ("config.toml", METRICS)):
        raise ConfigError(f"{path} is not a run folder (no run.json); it is left as it is")
    with locked(path):
        shutil.rmtree(path.resolve())


def _checkpoint(path: Path) -> int:
    """What an earlier process noted with `saved`."""
    noted = info_of(path).get("checkpoint", 0)
    return noted if isinstance(noted, int) else 0
