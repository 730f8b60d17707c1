"""Ranks as processes of one small run whose rewards take their time, and what is left of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

from forked import Forked
from oneloop.parallel import launch

ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(Path(launch.__file__).parents[2]), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
}  # fmt: skip
REWARDS = """
import os, time
from pathlib import Path
here, rank = Path(__file__).parent, os.environ.get("RANK", "alone")
(here / f"trainer{rank}").write_text(str(os.getppid()))
(here / f"worker{rank}").write_text(str(os.getpid()))
def slow(completions, **columns):
    time.sleep(0.2)
    if rank == "1" and (here / "fail").exists():
        raise ZeroDivisionError("no answer")
    return [float(len(text)) for text in completions]
"""
RUN = (
    "train grpo --model scratch:tiny --data task:addition --reward rewards.py:slow --prompts-per-step 2 "
    "--group-size 2 --max-new-tokens 3 --eval-size 2 --out run"
)
WORDS = [*RUN.split(), "--steps", "500"]
LONGEST = 15.0
"""Seconds in which all other ranks are gone when one is."""
MARKS = ("trainer0", "trainer1", "worker0", "worker1")


def ranks(arguments: list[str], folder: Path, count: int = 2, **more: str) -> list[Forked]:
    """As torchrun, or whatever sets the same names, starts them."""
    with socket.socket() as place:
        place.bind(("localhost", 0))
        port = str(place.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": port} | more
    return [Forked(arguments, folder, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]


def ended(processes: list[Forked] | list[subprocess.Popen[str]], seconds: float = 120.0) -> list[tuple[int, str, str]]:
    """Exit codes, and what was said."""
    try:
        told = [(*process.communicate(timeout=seconds), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(code, out, said) for out, said, code in told]


def until_step(process: Forked | subprocess.Popen[str], number: int = 1) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"step {number}/"):
            return
    raise AssertionError(process.stderr and process.stderr.read())


def state(folder: Path) -> dict:
    return json.loads((folder / "run" / "run.json").read_text())


def alive(folder: Path) -> list[str]:
    """Trainers and reward processes that are still there, and the server, if they share one."""
    marks = [folder / name for name in MARKS] + list(folder.glob("server"))
    return [mark.name for mark in marks if Path(f"/proc/{mark.read_text().strip()}").exists()]
