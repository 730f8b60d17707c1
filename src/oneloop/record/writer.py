"""A run's folder while it is written: append-only lines, one process at a time, cut back on resume."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from time import monotonic, time
from typing import IO, Any

from oneloop.errors import ConfigError
from oneloop.record.atomic import write_text
from oneloop.record.table import write_rollouts
from oneloop.types import Trajectory

HEARTBEAT_SECONDS = 10.0
METRICS, EVENTS = "metrics.jsonl", "events.jsonl"


class RunFolder:
    """Implements `oneloop.ports.Recorder`, and keeps run.json. Open it with `RunFolder.open`."""

    def __init__(self, path: Path, lock: IO[str], info: dict[str, Any]) -> None:
        self.path = path
        self._lock, self._info = lock, info
        self._metrics, self._events = ((path / name).open("ab") for name in (METRICS, EVENTS))
        self._last_step = -1
        self._beat = monotonic()
        self._write_info()

    @classmethod
    def open(cls, path: Path, *, resume: bool, config_text: str, facts: Mapping[str, Any]) -> RunFolder:
        """Create a run folder, or take up the one that is there.

        Raises: ConfigError when it holds a run and `resume` is false, or when another process is writing to it.
        """
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--out {path} is a file; wanted a folder to create")
        # the lock file alone is no run: a process killed right here must not block the next one
        taken = path.is_dir() and any(entry.name != ".lock" for entry in path.iterdir())
        if taken and not (path / "run.json").exists():
            raise ConfigError(f"--out {path} holds files, but no run. Fix: a folder that does not exist yet")
        if taken and not resume:
            raise ConfigError(
                f"--out {path} holds a run already. Fix: --resume to go on with it, another --out, or rm -r {path}"
            )
        path.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        info = _facts(facts)
        if not (path / "run.json").exists():
            write_text(path / "run.json", json.dumps(info | {"status": "starting"}, indent=1))
        if not (path / "config.toml").exists():
            write_text(path / "config.toml", config_text)
        return cls(path, lock, info)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line in metrics.jsonl. A value that is not finite is written as null."""
        if step <= self._last_step:
            raise RuntimeError(f"step {step} was written already; the last one is {self._last_step}")
        self._last_step = step
        row = {name: value if isfinite(value) else None for name, value in values.items()}
        _append(self._metrics, {"step": step, "time": time(), **row})
        if monotonic() - self._beat > HEARTBEAT_SECONDS:
            self._beat = monotonic()
            self._write_info()

    def trajectories(self, step: int, items: Sequence[Trajectory]) -> None:
        """One table of completions. That it cannot be written ends no run: the metrics are the record."""
        if not items:
            return
        try:
            write_rollouts(self.path / "rollouts" / f"step_{step:06d}.parquet", step, items)
        except OSError as error:
            self.event(step, "A_ROLLOUTS", f"the completions of this step were not written: {error}", "free disk space")

    def event(self, step: int, code: str, text: str, fix: str = "") -> None:
        """One alert in events.jsonl."""
        _append(self._events, {"step": step, "time": time(), "code": code, "text": text, "fix": fix})

    def position(self) -> dict[str, int]:
        """How far the append-only files reach, for a checkpoint."""
        return {"metrics": self._metrics.tell(), "events": self._events.tell()}

    def rewind(self, position: Mapping[str, int], step: int) -> None:
        """Cut off what was written after a checkpoint, and the tables of steps from `step` on."""
        for name, file in (("metrics", self._metrics), ("events", self._events)):
            os.ftruncate(file.fileno(), position.get(name, 0))
            file.seek(0, os.SEEK_END)
        for table in (self.path / "rollouts").glob("step_*.parquet"):
            if int(table.stem.removeprefix("step_")) >= step:
                table.unlink()
        self._last_step = step - 1

    def finish(self, status: str, failure: str | None = None) -> None:
        """Write how the run ended: finished, failed or stopped."""
        self._info |= {"status": status, "failure": failure}
        self._write_info()

    def close(self) -> None:
        self._metrics.close()
        self._events.close()
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write_info(self) -> None:
        self._info["heartbeat"] = time()
        write_text(self.path / "run.json", json.dumps(self._info, indent=1))


def remove_run(path: Path) -> None:
    """Delete a run folder, and nothing that is not one."""
    if not path.exists():
        return
    if not (path / "run.json").is_file():
        raise ConfigError(f"{path} is not a run folder (no run.json); it is left as it is")
    shutil.rmtree(path)


def _append(file: IO[bytes], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    file.flush()


def _locked(path: Path) -> IO[str]:
    lock = (path / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        info = json.loads((path / "run.json").read_text(encoding="utf-8")) if (path / "run.json").exists() else {}
        raise ConfigError(
            f"--out {path} is being written by process {info.get('pid')} on {info.get('host')} since "
            f"{info.get('started')}. Fix: wait, stop it, or another --out"
        ) from None
    return lock


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "running",
        "failure": None,
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
