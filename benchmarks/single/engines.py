"""GRPO with the built-in engine and with vLLM: `python benchmarks/single/engines.py [--seeds 3] [--steps 25]`.

Both start from a policy that the SFT of `oneloop demo` taught and go on as its GRPO, on the same prompts with the same
seeds of steps; only who draws the completions differs. The model is the demo's but for its heads, three of 32 instead
of four of 24, which vLLM does not know on a CPU. Prints a JSON line a run, and at last the held-out accuracy of each
engine over the seeds with its 95 % interval (Student's t): the two are to overlap. Needs `make vllm`.
"""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev

from scipy.stats import t as student

from oneloop.config import Run
from oneloop.model.save import save_policy
from oneloop.model.tiny import SCRATCH, character_tokenizer, scratch_model
from oneloop.recipes.demo import stages
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run

ENGINES = ("builtin", "vllm")


class Quiet:
    """Implements `oneloop.recipes.watched.Observer`."""

    def say(self, text: str) -> None: ...

    def step(self, step: int, values: object) -> None: ...


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--vllm-python", default=".venv-vllm/bin/python")
    parser.add_argument("--out", default="", help="folder to keep the runs in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(args, Path(args.out or temporary))


def compare(args: Namespace, folder: Path) -> None:
    start = taught(folder)
    reached: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for seed in range(args.seeds):
        for engine in ENGINES:  # in turn
            out = execute(trained(args, engine, seed, start, folder / f"{engine}-{seed}"), Quiet())
            steps = read_run(out).metrics
            reached[engine].append(steps[-1]["eval/reward"])
            print(json.dumps(line(engine, seed, steps)), flush=True)
    for engine, values in reached.items():
        print(json.dumps({"engine": engine, "accuracy": fmean(values), "interval": half_width(values)}))


def line(engine: str, seed: int, steps: list[dict]) -> dict[str, object]:
    """What one run came to; gaps in nats, over all steps."""
    names = ("rollout/logprob_gap", "rollout/logprob_gap/max")
    return {
        "engine": engine,
        "seed": seed,
        "steps": len(steps),
        "accuracy": steps[-1]["eval/reward"],
        **{name: max((step[name] for step in steps if name in step), default=0.0) for name in names},
        **{f"{part}_seconds": median(step[f"time/{part}"] for step in steps) for part in ("rollout", "update")},
    }


def taught(folder: Path) -> Path:
    """From which all runs start."""
    tokenizer = character_tokenizer()
    save_policy(folder / "model", scratch_model(replace(SCRATCH["tiny"], heads=3), tokenizer, 0), tokenizer)
    return execute(replace(stages(folder, seed=0)["sft"], model=str(folder / "model")), Quiet()) / "final"


def trained(args: Namespace, engine: str, seed: int, start: Path, out: Path) -> Run:
    """The demo's GRPO."""
    run = replace(stages(out.parent, seed)["grpo"], model=str(start), out=str(out), steps=args.steps)
    python = args.vllm_python if engine == "vllm" else ""
    return replace(run, eval_every=0, eval_size=512, engine=engine, vllm_python=python)


def half_width(values: list[float]) -> float:
    """Of the 95 % interval of a mean; infinite for a single value."""
    count = len(values)
    return float(student.ppf(0.975, count - 1)) * stdev(values) / sqrt(count) if count > 1 else float("inf")


if __name__ == "__main__":
    main()
