"""Seconds and tokens per second of whole steps, by method: `make bench-step`.

Each method runs a few steps on `scratch:tiny`, one thread, float32; medians over the steps after the first.
Prints one JSON line per method with the phases of a step and the versions.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from oneloop.config import default_run
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run

STEPS = 12
PHASES = ("time/rollout", "time/reward", "time/prepare", "time/update")


class Quiet:
    def say(self, text: str) -> None: ...

    def step(self, step: int, values: Mapping[str, float]) -> None: ...


def measured(algorithm: str, folder: Path) -> dict[str, float]:
    """Medians of the phases over the steps after the first, in seconds."""
    run = replace(default_run(algorithm), out=str(folder / algorithm), steps=STEPS, learning_rate=1e-5, eval_size=2)
    execute(replace(run, prompts_per_step=32, minibatch=0, max_new_tokens=32), Quiet())
    record = read_run(folder / algorithm)
    names = [name for name in (*PHASES, "tokens_per_second") if record.series(name)[1]]
    return {name: round(median(record.series(name)[1][1:]), 4) for name in names}


def main() -> None:
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("oneloop", "torch", "transformers")} | {"machine": platform.machine()}
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in ("sft", "dpo", "ppo", "grpo", "rloo"):
            print(json.dumps({"algorithm": algorithm, **measured(algorithm, Path(folder)), **versions}))


if __name__ == "__main__":
    main()
