"""oneloop's side of every case, in its own process: whole runs through `execute`, rollouts through `Engine`."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases.data import prompt_ids
from cases.flops import step_flops
from cases.models import EOS
from cases.values import ACCURACY, CASES, ENOUGH, SCALING, WINDOW, Case, rows_a_pass
from processes.measured import arguments, emit, forget_peak, mebibytes, timed_calls, wait_for_turn
from transformers import AutoModelForCausalLM

from oneloop.config import Run, default_run
from oneloop.experience.pairs import Pair
from oneloop.recipes import build
from oneloop.recipes.execute import execute
from oneloop.record.reader import read_run
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling

PHASES = ("time/rollout", "time/prepare", "time/update")
"""They follow each other and make up the step; time/reward is a part of the first."""
REWARDS = Path(__file__).parents[1] / "cases" / "rewards.py"


class Watch:
    """Notes when a step is over, records included, and stops a run that has seen enough.

    Args:
        turns: the next step waits for its turn.
    """

    def __init__(self, enough: float = float("inf"), *, turns: bool = False) -> None:
        self.enough, self.turns = enough, turns
        self.begun = perf_counter()
        self.begun_work = 0.0
        self.starts: list[float] = []
        """Of the steps after the warm-up."""
        self.worked: list[float] = []
        """Seconds of the processor in each of them."""
        self.ends: list[float] = []
        self.rewards: list[float] = []
        self.peak = 0.0

    def say(self, text: str) -> None:
        if not self.ends:  # the last line before the first step
            self.begun = perf_counter()

    def step(self, step: int, values: Mapping[str, float]) -> None:
        self.ends.append(perf_counter())
        if self.starts:
            self.worked.append(process_time() - self.begun_work)
        self.peak = mebibytes("VmHWM")  # before the checkpoint is written
        self.rewards.append(values.get("reward", 0.0))
        if len(self.rewards) >= WINDOW and sum(self.rewards[-WINDOW:]) / WINDOW >= self.enough:
            raise Enough
        if self.turns:
            wait_for_turn()
        self.starts.append(perf_counter())
        self.begun_work = process_time()


class Enough(Exception):
    """The run has reached what it was for."""


def run_of(case: Case, args: Namespace) -> Run:
    """The case as a run: everything in one optimizer step of one epoch, one pass over the whole batch."""
    kind = {"memory": "dpo", "scaling": "grpo", "accuracy": "grpo", "peak": "sft"}.get(case.kind, case.kind)
    run = replace(
        default_run(kind),
        model=args.model,
        data=args.data,
        out=str(Path(args.work) / "run"),
        steps=case.steps + (case.kind not in ("memory", "accuracy")),
        prompts_per_step=case.rows,
        minibatch=0,
        learning_rate=case.learning_rate,
        seed=args.seed,
        lora=case.lora,
    )
    if pairs := rows_a_pass(args.engine):  # a prompt counts once
        run = replace(run, max_tokens=pairs * (case.prompt_tokens + case.group * case.max_new_tokens))
    if kind == "grpo":
        reward = "exact" if case.kind == "accuracy" else "spread"
        run = replace(run, reward=(f"{REWARDS}:{reward}",), max_new_tokens=case.max_new_tokens, group_size=case.group)
        run = replace(run, set=(f"kl.coef={case.beta}",))
    return run


def watched_reference() -> list[float]:
    """Seconds of the passes that ask the reference about pairs before step 0, filled while a run is built."""
    seconds: list[float] = []
    ask = build.with_reference

    def timed(*args: Any, **options: Any) -> Sequence[Pair]:
        start = perf_counter()
        pairs = ask(*args, **options)
        seconds.append(perf_counter() - start)
        return pairs

    build.with_reference = timed
    return seconds


def steps_of(case: Case, args: Namespace) -> dict[str, object]:
    watch, asked = Watch(turns=True), watched_reference()
    run = run_of(case, args)
    record = read_run(execute(run, watch))
    phases = {name: record.series(name)[1][1:] for name in PHASES}
    if asked:  # about one step's pairs, which are all there are: each step counts it, as in a run of one epoch
        phases["reference before step 0"] = [sum(asked)] * case.steps
    wall = [end - start for start, end in zip(watch.starts, watch.ends[1:], strict=False)]
    names = ("completions/mean_length", "loss", "reward")
    found = {name: record.series(name)[1] for name in names if record.series(name)[1]}
    return {
        "seconds": [sum(parts) for parts in zip(*phases.values(), strict=True)],
        "wall_seconds": wall,
        "processor_seconds": watch.worked,
        "phases": phases,
        "tokens": [mean * case.rows * case.group for mean in found.get(names[0], [])[1:]],
        "losses": [] if run.algorithm == "grpo" else found["loss"],
        "metrics": found,
    }


def rollouts_of(case: Case, args: Namespace) -> dict[str, object]:
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    engine, prompts = Engine(model, (EOS,)), prompt_ids(case)
    sampling = Sampling(max_new_tokens=case.max_new_tokens)

    def call(number: int) -> int:
        first = (args.seed * 100 + number) * len(prompts)
        completions = engine.generate(prompts, sampling, list(range(first, first + len(prompts))))
        return sum(len(completion.tokens) for completion in completions)

    return dict(timed_calls(call, case.steps))


def memory_of(case: Case, args: Namespace) -> dict[str, object]:
    before = mebibytes("VmRSS")
    forget_peak()
    watch = Watch()
    execute(run_of(case, args), watch)
    return {"mebibytes": watch.peak - before, "before": before}


def accuracy_of(case: Case, args: Namespace) -> dict[str, object]:
    rate = float(args.engine.partition("@")[2])
    watch = Watch(enough=ENOUGH)
    try:
        execute(replace(run_of(case, args), learning_rate=rate), watch)
        reached = False
    except Enough:
        reached = True
    return {"reached": reached, "seconds": [watch.ends[-1] - watch.begun], "rewards": watch.rewards}


def peak_of(case: Case, args: Namespace) -> dict[str, object]:
    values = steps_of(case, args)
    lengths = [(case.prompt_tokens, case.lengths.high)] * case.rows
    return {**values, "flops": step_flops(case.shape, lengths)}


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    case = SCALING[args.point].case if args.point >= 0 else CASES[args.case]
    shutil.rmtree(Path(args.work) / "run", ignore_errors=True)
    measure = {"rollout": rollouts_of, "memory": memory_of, "accuracy": accuracy_of, "peak": peak_of}
    emit(measure.get(case.kind, steps_of)(ACCURACY if case.kind == "accuracy" else case, args))
    shutil.rmtree(Path(args.work) / "run", ignore_errors=True)


if __name__ == "__main__":
    main()
