"""What it costs to record ratios and tokens: `python benchmarks/single/trace.py [pairs of runs]`.

The same run with `--trace` and with `--no-trace`, one after the other, in changing order. A step's time is that from
one line of metrics.jsonl to the next, recording included. Prints for each method the median step without, the median
over pairs of with/without, and the bytes a step leaves; the goal is a ratio of at most 1.02.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from oneloop.config import Run, default_run
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run

STEPS = 12
METHODS = {"grpo": {"minibatch": 16, "epochs": 2}, "grpo one update": {}, "ppo": {}, "dpo": {}, "sft": {}}


class Quiet:
    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None: ...


def seconds(run: Run) -> float:
    """The median step after the first two."""
    execute(run, Quiet())
    times = [row["time"] for row in read_run(Path(run.out)).metrics]
    return median(after - before for before, after in zip(times[1:-1], times[2:], strict=True))


def main() -> None:
    torch.set_num_threads(1)
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in METHODS.items():
            run = replace(default_run(name.split()[0]), steps=STEPS, learning_rate=1e-5, eval_size=2, overwrite=True)
            run = replace(run, prompts_per_step=32, max_new_tokens=32, **changes)
            ratios, plain = [], []
            for pair in range(pairs):
                found = {}
                for trace in (True, False) if pair % 2 else (False, True):
                    found[trace] = seconds(replace(run, trace=trace, out=f"{folder}/{trace}"))
                ratios.append(found[True] / found[False])
                plain.append(found[False])
            files = (path for name in ("ratios", "tokens", "pairs") for path in Path(folder, "True", name).glob("*"))
            kept = sum(path.stat().st_size for path in files) / STEPS
            print(
                f"{name:<16} step {median(plain) * 1e3:7.1f} ms   with/without {median(ratios):.3f} "
                f"({min(ratios):.3f} to {max(ratios):.3f})   {kept / 1024:.1f} KiB a step"
            )


if __name__ == "__main__":
    main()
