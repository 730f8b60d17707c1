"""Rollouts that do not wait, `--staleness K`, beside those that do: `python benchmarks/single/staleness.py WHAT`.

    predict     what a simulation says of the speed-up, by K, spread of lengths and trainer ÷ sampler; seconds
    measure     the same of this machine: a run that takes turns, from which the others are predicted, and those,
                in two processes of one thread each; in turn, a JSON line each with the error of the prediction
    accuracy    the held-out accuracy of K = 0, 1, 2 from the same start at equal samples, over seeds, each with its
                95 % interval (Student's t): the intervals are to overlap

`measure` needs two cores that nobody else uses.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from single.ahead_model import (
    Costs,
    Lengths,
    continuing,
    finishing,
    seconds_per_step,
    table,
)
from single.engines import Quiet, half_width, taught, trained

from oneloop.config import Run, default_run
from oneloop.model.load import load_policy
from oneloop.recipes.execute import execute
from oneloop.record.reader import RunRecord, read_run
from oneloop.rollout.beside import weights

SKIPPED = 4
"""Steps before the steady state: the sampler's process starts, and the first steps have nothing ahead of them."""
WAYS = [(1, "finish"), (2, "finish"), (1, "continue"), (2, "continue")]


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("predict", "measure", "accuracy"))
    parser.add_argument("--steps", type=int, default=20, help="of measure and accuracy")
    parser.add_argument("--rounds", type=int, default=1, help="of measure")
    parser.add_argument("--model", default="scratch:tiny", help="of measure")
    parser.add_argument("--prompts", type=int, default=8, help="of measure: a step's, eight answers each")
    parser.add_argument("--length", type=int, default=200, help="of measure: most tokens of an answer")
    parser.add_argument("--seeds", type=int, default=3, help="of accuracy")
    parser.add_argument("--in-flight", default="finish", choices=("finish", "continue"), help="of accuracy")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"predict": predict, "measure": measure, "accuracy": accuracy}[args.what](args, Path(folder))


def predict(args: Namespace, folder: Path) -> None:
    for line in table():
        print(json.dumps({name: round(value, 2) for name, value in line.items()}))


def measure(args: Namespace, folder: Path) -> None:
    for number in range(args.rounds):
        load = os.getloadavg()[0]
        turns = read_run(execute(measured(args, folder / f"{number}-turns"), Quiet()))
        lengths, costs = lengths_of(turns), costs_of(turns, args)
        now = per_step(turns)
        print(json.dumps({"round": number, "staleness": 0, "seconds": round(now, 3), "load_before": load}), flush=True)
        for staleness, way in WAYS:
            run = measured(args, folder / f"{number}-{staleness}-{way}", staleness=staleness, in_flight=way)
            seconds = per_step(read_run(execute(run, Quiet())))
            simulated = finishing if way == "finish" else continuing
            predicted = seconds_per_step(simulated(costs, lengths, staleness), SKIPPED)
            answer = {
                "round": number, "staleness": staleness, "in_flight": way, "seconds": round(seconds, 3),
                "predicted": round(predicted, 3), "error": round(predicted / seconds - 1, 3),
                "speed-up": round(now / seconds, 2), "predicted speed-up": round(now / predicted, 2),
            }  # fmt: skip
            print(json.dumps(answer), flush=True)


def measured(args: Namespace, out: Path, **changes: object) -> Run:
    """Untrained weights end an answer by chance, so that lengths are spread as a geometric distribution's; the
    learning rate leaves them as they are."""
    run = replace(default_run("grpo"), model=args.model, data="task:addition", out=str(out), steps=args.steps)
    run = replace(run, prompts_per_step=args.prompts, learning_rate=1e-12, max_new_tokens=args.length, eval_size=2)
    return replace(run, trace=False, **changes)


def per_step(record: RunRecord) -> float:
    times = [row["time"] for row in record.metrics]
    return (times[-1] - times[SKIPPED - 1]) / (len(times) - SKIPPED)


def lengths_of(record: RunRecord) -> Lengths:
    return [[row["length"] for row in record.rollouts(step)] for step in range(len(record.metrics))]


def costs_of(turns: RunRecord, args: Namespace) -> Costs:
    """Fitted to a run that takes turns: seconds of a rollout = of_batch + of_pass · longest + of_row · tokens."""
    rows = turns.metrics[1:]  # the first has what happens once
    lengths = lengths_of(turns)[1:]
    known = np.array([[1.0, max(step), sum(step)] for step in lengths])
    rollouts = np.array([row["time/rollout"] for row in rows])
    of_batch, of_pass, of_row = np.linalg.lstsq(known, rollouts, rcond=None)[0]
    steps = np.diff([row["time"] for row in turns.metrics])
    return Costs(
        of_batch=float(of_batch), of_pass=float(of_pass), of_row=float(of_row),
        train=float(np.median(steps - rollouts)), handover=handover(args.model),
    )  # fmt: skip


def handover(source: str) -> float:
    """Seconds from the trainer's weights to the sampler's."""
    model, folder = load_policy(source), weights.shared_folder()
    seconds = []
    for _ in range(5):
        start = perf_counter()
        weights.write(model.state_dict(), folder / "w")
        weights.read(folder / "w", model)
        seconds.append(perf_counter() - start)
    folder.rmdir()
    return median(seconds)


def accuracy(args: Namespace, folder: Path) -> None:
    start = taught(folder)
    args.vllm_python = ""
    reached: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for seed in range(args.seeds):
        for staleness, values in reached.items():  # in turn
            run = trained(args, "builtin", seed, start, folder / f"{staleness}-{seed}")
            switch = args.in_flight if staleness else "finish"
            steps = read_run(execute(replace(run, staleness=staleness, in_flight=switch), Quiet())).metrics
            values.append(steps[-1]["eval/reward"])
            line = {"staleness": staleness, "seed": seed, "accuracy": values[-1]}
            names = ("rollout/staleness", "rollout/logprob_gap/max")
            line |= {name: max(step[name] for step in steps) for name in names if staleness}
            print(json.dumps(line), flush=True)
    for staleness, values in reached.items():
        print(json.dumps({"staleness": staleness, "accuracy": fmean(values), "interval": half_width(values)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
