"""Runs one engine once, in a process and an environment of its own, and reads its one JSON line."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
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


def run_engine(engine: str, case: str, *, model: Path, data: Path, seed: int, point: int = -1) -> Values:
    """What the engine printed, or `error`: why there is nothing."""
    script = BENCHMARKS / SCRIPTS[family(engine)]
    work = CACHE / "work" / f"{case}-{engine}"
    work.mkdir(parents=True, exist_ok=True)
    options = {"case": case, "engine": engine, "model": model, "data": data, "work": work, "seed": seed, "point": point}
    flags = [f"--{name}={value}" for name, value in options.items()]
    load = os.getloadavg()[0]  # above about 0 before the first process, 1 between them: something else was running
    return run_script([python_of(engine), str(script), *flags]) | {"load_before": round(load, 2)}


def run_script(command: list[str]) -> Values:
    if not Path(command[0]).is_file():
        return {"error": f"{short(command[0])} is not there. Fix: make bench-peers"}
    environment = {**os.environ, **ONE_THREAD}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"gave no result in {PATIENCE} seconds"}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    return {"error": _reason(done.stderr, done.returncode), "tail": [short(x) for x in done.stderr.splitlines()[-8:]]}


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


def machine() -> Values:
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": memory,
        "system": platform.platform(),
        "threads": 1,
    }


def _field(path: Path, name: str) -> str:
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""
