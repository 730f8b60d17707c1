"""Runs engines, each in a process and an environment of its own, in turn, and reads the one JSON line of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

from processes.measured import TURN, TURNS

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
CACHE = BENCHMARKS / ".cache"
PEERS = ROOT / ".venv-peers"
SCRIPTS = {"oneloop": "ours.py", "trl": "peer_trl.py", "transformers": "peer_transformers.py", "vllm": "peer_vllm.py"}
ENVIRONMENTS = {"trl": "trl", "transformers": "trl", "vllm": "vllm"}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "PYTHONWARNINGS": "ignore",
}
PATIENCE = 3 * 3600
"""Seconds after which a process is given up."""

Values = dict[str, Any]


def family(engine: str) -> str:
    """`trl` of `trl-continuous` and of `trl@0.001`."""
    return engine.partition("@")[0].partition("-")[0]


def python_of(engine: str) -> str:
    name = ENVIRONMENTS.get(family(engine))
    return str(PEERS / name / "bin" / "python") if name else sys.executable


class Running:
    """A process that has been started and stands before its first timed step, or is over."""

    def __init__(self, command: Sequence[str]) -> None:
        load = os.getloadavg()[0]  # above about 0 before the first process, 1 between them: something else was running
        self._load = round(load, 2)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD, TURNS: "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._limit = Timer(PATIENCE, self._process.kill)
        self._limit.start()
        self._lines: list[str] = []
        self.waits = True
        self._listen()

    def go(self) -> None:
        """One timed step, up to the next."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died while it waited: `result` says of what
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._listen()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == TURN:
                return
            self._lines.append(line)
        self.waits = False

    def result(self) -> Values:
        """What it printed, or `error`: why there is nothing."""
        code = self._process.wait()
        self._limit.cancel()
        self._errors.seek(0)
        errors = self._errors.read()
        lines = [line for line in self._lines if line.startswith('{"')]
        if code == 0 and lines:
            return json.loads(lines[-1]) | {"load_before": self._load}
        return {"error": _reason(errors, code), "tail": [short(line) for line in errors.splitlines()[-8:]]}


def started(engine: str, case: str, *, model: Path, data: Path, seed: int, point: int = -1) -> Running | Values:
    """The engine's process, or `error`: why there is none."""
    script = BENCHMARKS / "peers" / SCRIPTS[family(engine)]
    work = CACHE / "work" / f"{case}-{engine}"
    work.mkdir(parents=True, exist_ok=True)
    options = {"case": case, "engine": engine, "model": model, "data": data, "work": work, "seed": seed, "point": point}
    command = [python_of(engine), str(script), *(f"--{name}={value}" for name, value in options.items())]
    if not Path(command[0]).is_file():
        return {"error": f"{short(command[0])} is not there. Fix: make bench-peers"}
    return Running(command)


def in_turn(processes: Sequence[Running | Values]) -> list[Values]:
    """A B A B, one timed step of each at a time while the others wait, so that a slow minute meets all of them."""
    while waiting := [process for process in processes if isinstance(process, Running) and process.waits]:
        for process in waiting:
            process.go()
    return [process.result() if isinstance(process, Running) else process for process in processes]


def _reason(text: str, code: int) -> str:
    """The exception's own line; a killed process leaves none."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception", "Exit"))]
    return short((named or lines or [f"exit code {code}"])[-1])


def short(text: str) -> str:
    """Without the folders of this machine."""
    for folder in (ROOT, *(path.resolve() for path in PEERS.glob("*"))):
        text = text.replace(str(folder), folder.name if folder != ROOT else ".")
    return text[:600]
