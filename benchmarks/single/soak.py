"""Whether a long run grows: `python benchmarks/single/soak.py [--steps 5000] [--hangs 1000]`.

GRPO on a model of a few thousand parameters, traced and recorded as by default, then reward functions that hang. Prints
the resident memory of the process along the way, what malloc holds of it that is free, file descriptors, threads and
children before and after, and slopes after the first fifth (least squares). Runs keep freed memory
(`oneloop.recipes.meter.settle_malloc`), so resident memory takes a step up whenever a piece fits into no hole; what
nobody has freed is the difference. Ends with 1 where that grows by more than 1 KiB a step, or anything is left.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import linear_regression
from time import perf_counter, sleep

from oneloop.config import default_run
from oneloop.experience.episodes import Request, trajectory
from oneloop.recipes.execute import execute
from oneloop.recipes.meter import resident
from oneloop.rewards import Limits, NamedReward, Pool, RewardScorer
from oneloop.rewards.guarded import Guarded
from oneloop.types import Completion, Prompt, StopReason, Trajectory

MOST_SLOPE, WARM = 1.0, 0.2
"""KiB a step; share of the steps that are not counted: caches fill."""
SETTINGS = {
    "data": "task:addition", "prompts_per_step": 2, "group_size": 2, "max_new_tokens": 4, "learning_rate": 1e-4,
    "data_size": 64, "eval_size": 2,
}  # fmt: skip
HANGS = "import time\ndef hangs(completions):\n    while True:\n        time.sleep(0.001)\n"


class _Info(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h, in bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    )]  # fmt: skip


def free_in_malloc() -> int:
    """Bytes that were freed and not given back to the kernel."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _Info
    return ask().fordblks


def held() -> dict[str, int]:
    """What the process has of things that can be left behind."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": len(children.read_text(encoding="ascii").split()),
    }


class Looks:
    """Implements `oneloop.recipes.watched.Observer`."""

    def __init__(self, steps: int) -> None:
        self._every = max(steps // 100, 1)
        self.seen: dict[int, tuple[float, float]] = {}
        """By step: KiB resident, and KiB of them that are free."""

    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None:
        if step % self._every:
            return
        size, free = self.seen[step] = resident() / 1024, free_in_malloc() / 1024
        if len(self.seen) % 10 == 1:
            print(f"step {step:6d}  {size:10,.0f} KiB, {free:8,.0f} of them free  {held()}", flush=True)


def run_steps(steps: int, folder: str) -> bool:
    looks, start = Looks(steps), perf_counter()
    execute(replace(default_run("grpo"), steps=steps, out=f"{folder}/run", **SETTINGS), looks)  # pyright: ignore[reportArgumentType]
    counted = {step: seen for step, seen in looks.seen.items() if step >= WARM * steps}
    taken, used = (
        linear_regression(list(counted), values).slope
        for values in ([size for size, _ in counted.values()], [size - free for size, free in counted.values()])
    )
    print(
        f"{steps} steps in {perf_counter() - start:.0f} s; KiB a step after the first {WARM:.0%}: "
        f"{used:+.2f} not freed, {taken:+.2f} resident"
    )
    return used <= MOST_SLOPE


def run_hangs(count: int, folder: str) -> bool:
    file = Path(folder) / "hangs.py"
    file.write_text(HANGS, encoding="utf-8")
    space: dict[str, object] = {}
    exec(HANGS, space)
    item = trajectory(
        Request(Prompt(id="0", text="", tokens=(0,)), 0, 0, 0),
        Completion(tokens=(1,), logprobs=(0.0,), stop=StopReason.EOS),
        lambda ids: "",
    )
    return all([
        _hang("in the trainer's process", Guarded(space["hangs"], "hangs", 0.002), item, count),
        _hang("in a process of its own", Pool(f"{file}:hangs", Limits(timeout=0.002)), item, count),
    ])  # fmt: skip


def _hang(where: str, grader: Guarded | Pool, item: Trajectory, count: int) -> bool:
    before, start = held(), perf_counter()
    score = RewardScorer((NamedReward("hangs", grader),), "unscored")
    scored = sum(score([item])[0].reward.value is not None for _ in range(count))
    grader.close()
    sleep(1.0)
    after = held()
    left = {name: after[name] - before[name] for name in after if after[name] > before[name]}
    print(f"{count} hangs {where} in {perf_counter() - start:.0f} s: {scored} scored, left: {left or 'nothing'}")
    return not left and not scored


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=5000)
    options.add_argument("--hangs", type=int, default=1000)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = [run_steps(asked.steps, folder), run_hangs(asked.hangs, folder)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
