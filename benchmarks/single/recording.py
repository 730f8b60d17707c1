"""What it costs to record ratios and tokens: `python benchmarks/single/recording.py [pairs of runs]`.

The same run with `--trace` and with `--no-trace`, one after the other, in changing order, on one thread. A step's time
is the processor's, so that what else the machine does counts little; recording is in it. Prints for each method the
mean step without, the median over pairs of with/without (the goal is 1.02 at most), what the trace took by its own
clock, which is steadier, and the bytes a step leaves.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time

import torch

import oneloop.recipes.execute as execute_module
from oneloop.batch import Batch, PolicyOutput
from oneloop.config import Run, default_run
from oneloop.recipes.execute import execute
from oneloop.trace.traced import Traced
from oneloop.types import Trajectory

STEPS = 12
METHODS = {"grpo": {"minibatch": 16, "epochs": 2}, "grpo one update": {}, "ppo": {}, "dpo": {}, "sft": {}}


class Timed(Traced):
    """Adds up what it takes itself."""

    spent = 0.0

    def saw(self, update: int, micro: Batch, out: PolicyOutput) -> None:
        start = process_time()
        super().saw(update, micro, out)
        Timed.spent += process_time() - start

    def close(self, step: int, batch: Batch, trajectories: Sequence[Trajectory]) -> None:
        start = process_time()
        super().close(step, batch, trajectories)
        Timed.spent += process_time() - start


class Stopwatch:
    """An observer that notes the processor's seconds at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.spent: list[float] = []

    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self.times.append(process_time())
        self.spent.append(Timed.spent)


def seconds(run: Run) -> tuple[float, float]:
    """A step after the first four, and what the trace took of it: means, since fixed data is kept every fourth step."""
    watch = Stopwatch()
    execute(run, watch)
    return _mean_step(watch.times), _mean_step(watch.spent)


def _mean_step(clock: list[float]) -> float:
    return (clock[-1] - clock[3]) / (len(clock) - 4)


def main() -> None:
    torch.set_num_threads(1)
    execute_module.Traced = Timed
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in METHODS.items():
            run = replace(default_run(name.split()[0]), steps=STEPS, learning_rate=1e-5, eval_size=2, overwrite=True)
            run = replace(run, prompts_per_step=32, max_new_tokens=32, **changes)
            ratios, plain, own = [], [], []
            for pair in range(pairs):
                found = {}
                for trace in (True, False) if pair % 2 else (False, True):
                    found[trace] = seconds(replace(run, trace=trace, out=f"{folder}/{trace}"))
                ratios.append(found[True][0] / found[False][0])
                plain.append(found[False][0])
                own.append(found[True][1])
            files = (path for name in ("ratios", "tokens", "pairs") for path in Path(folder, "True", name).glob("*"))
            kept = sum(path.stat().st_size for path in files) / STEPS
            ratio = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            alone = f"{median(own) * 1e3:.1f} ms = {median(own) / median(plain):.1%}"
            print(
                f"{name:<16} step {median(plain) * 1e3:7.1f} ms   with/without {ratio}   the trace alone {alone}   "
                f"{kept / 1024:.1f} KiB a step"
            )


if __name__ == "__main__":
    main()
