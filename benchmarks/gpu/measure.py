"""Sampling and training of Qwen3-shaped random models on one GPU, against what the device can do.

    python benchmarks/gpu/measure.py --shape 0.6b
    python benchmarks/gpu/measure.py --shape 4b --case rollout train-sft-768-one_kernel
    python benchmarks/gpu/measure.py --shape tiny --device cpu        # shows that every line works, and no speed

Needs torch, transformers and oneloop, and no network. Passes run in bfloat16 autocast over float32 weights, as
`--dtype bfloat16 --device cuda` does. A case that fails is written down with its message; the others go on.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from cases.models import word_tokenizer
from gpu.rollout import Sampled, rollouts
from gpu.setups import (
    SETUPS,
    Bench,
    Measured,
    Setup,
    attempted,
    batch_of,
    config_of,
    copy_rate,
    device_facts,
    forget,
    matmul_rates,
    random_model,
    seconds_of,
    step_flops,
    watched,
)
from processes.measured import versions
from torch import Tensor

from oneloop.algorithms import GRPO, SFT, PolicyGradient
from oneloop.batch import Batch
from oneloop.forward.attention import hidden_states
from oneloop.forward.packed import packed
from oneloop.forward.probe import one_kernel
from oneloop.model.learner import Learner, Optimization

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Trained:
    """One way to train: rows alone, or groups that share their prompt; attention in one kernel, or bucket by bucket."""

    algorithm: PolicyGradient
    max_tokens: int
    one_kernel: bool

    @property
    def work(self) -> str:
        return f"{self.algorithm.name}-{self.max_tokens}"

    @property
    def name(self) -> str:
        return f"{self.work}-{'one_kernel' if self.one_kernel else 'buckets'}"

    def group(self, setup: Setup) -> int:
        return 1 if self.algorithm is SFT else setup.train.group


def training(case: Trained, bench: Bench) -> Measured:
    load, group = bench.setup.train, case.group(bench.setup)
    learner = _learner(case, bench)
    phases: dict[str, list[float]] = {"prepare_seconds": [], "forward_backward_seconds": [], "optimizer_seconds": []}
    shares, tokens, memory = [], [], {}
    for number in range(load.steps + 1):  # the first is the warm-up
        rows = load.lengths(number)
        batch = batch_of(rows, group, bench)
        with watched(bench.device, memory):
            timed = _step(case, learner, batch)
        if number == 0:
            first = sum(timed)
            continue
        for phase, seconds in zip(phases.values(), timed, strict=True):
            phase.append(seconds)
        _, passes, update = timed
        shares.append(step_flops(bench.setup.shape, rows, group) / (passes + update) / bench.flops_per_second)
        tokens.append(sum(answer for _, answer in rows) / (passes + update))
    return {
        "mfu": median(shares),
        "trained_tokens_per_second": median(tokens),
        **phases,
        "first_seconds": first,
        **memory,
    }


def _learner(case: Trained, bench: Bench) -> Learner:
    optimization = Optimization(learning_rate=1e-6, critic_learning_rate=1e-6, total_updates=bench.setup.train.steps)
    learner = Learner(
        random_model(bench),
        optimization=optimization,
        dtype=torch.bfloat16,
        entropy="none" if case.algorithm is SFT else "value",
        max_tokens=case.max_tokens,
    )
    if learner.note:
        raise RuntimeError(learner.note)
    return learner


def _step(case: Trained, learner: Learner, batch: Batch) -> tuple[float, float, float]:
    """What the loop does with a batch of one optimizer step: seconds of advantages, of gradients and of the update."""
    ready: list[Batch] = []

    def gradients() -> None:
        size = ready[0].size
        for micro in ready[0].microbatches(case.max_tokens):
            case.algorithm.loss(learner.policy(micro), micro, size).value.backward()

    # whatever the learner's own trial of the kernel has said
    with patch("oneloop.forward.reader.packed", lambda rows, _: packed(rows, one_kernel=case.one_kernel)):
        return (
            seconds_of(learner.device, lambda: ready.append(case.algorithm.prepare(batch, learner, one_update=True))),
            seconds_of(learner.device, gradients),
            seconds_of(learner.device, learner.step),
        )


def planned(case: Trained, bench: Bench) -> Measured:
    """Bytes that `oneloop plan` says the same run needs, by phase."""
    # they want a model's folder and the command line's packages, which nothing else here does
    from oneloop.config import default_run  # noqa: PLC0415
    from oneloop.plan.bill import Lengths, bill  # noqa: PLC0415

    group, rows = case.group(bench.setup), bench.setup.train.lengths(1)
    with tempfile.TemporaryDirectory() as folder:
        config_of(bench.setup.shape).save_pretrained(folder)
        word_tokenizer(64).save_pretrained(folder)
        run = replace(
            default_run(case.algorithm.name),
            model=folder,
            prompts_per_step=len(rows) // group,
            group_size=group,
            max_new_tokens=max(answer for _, answer in rows),
            max_tokens=case.max_tokens,
            set=() if case.algorithm is SFT else ("kl=none",),
            dtype="bfloat16",
            device=str(bench.device),
        )
        phases = bill(run, Lengths(prompt=rows[0][0], answer=round(mean(answer for _, answer in rows)))).phases
    return {"planned_bytes": {phase.name: phase.bytes for phase in phases}}


def flex(bench: Bench) -> Measured:
    """Whether attention in one kernel compiles, what it says beside attention in buckets, and a forward of both."""
    model, load = random_model(bench), bench.setup.train
    batch = next(iter(batch_of(load.lengths(0), load.group, bench).microbatches(min(load.max_tokens))))
    states: dict[bool, Tensor] = {}

    @torch.no_grad()
    def forward(whole: bool) -> None:
        sequence = packed(batch, one_kernel=whole)
        with bench.precision():
            states[whole] = hidden_states(model, sequence.tokens, sequence.positions, sequence)[0]

    told: Measured = {"first_seconds": seconds_of(bench.device, partial(forward, True))}
    forward(False)
    for name, whole in (("one_kernel_seconds", True), ("bucket_seconds", False)):
        told[name] = median(seconds_of(bench.device, partial(forward, whole)) for _ in range(5))
    told["largest_difference"] = float((states[True] - states[False]).abs().max())
    told["largest_state"] = float(states[False].abs().max())
    told["probe_seconds"] = seconds_of(bench.device, lambda: told.update(probe=one_kernel(model, torch.bfloat16)))
    return told


def cases_of(setup: Setup) -> dict[str, Callable[[Bench], Measured]]:
    """By name, what matters most first: time may run out."""
    trainings = [
        Trained(algorithm, max_tokens, whole)
        for max_tokens in setup.train.max_tokens
        for algorithm in (SFT, replace(GRPO, kl=None))
        for whole in (True, False)
    ]
    samplings = {
        "rollout": Sampled(),
        "rollout-ragged": Sampled(ragged=True),
        "rollout-bfloat16": Sampled(dtype=torch.bfloat16),
        "rollout-ragged-bfloat16": Sampled(ragged=True, dtype=torch.bfloat16),
        "rollout-launched": Sampled(launched=True),
        "rollout-default-cache": Sampled(alone=True),
    }
    return {
        "flex": flex,
        **{f"train-{case.name}": partial(training, case) for case in trainings},
        **{name: partial(rollouts, case) for name, case in samplings.items()},
        **{f"plan-{case.work}": partial(planned, case) for case in trainings},
    }


def line_of(name: str, told: Measured) -> str:
    """A case's line in the table."""
    if "error" in told:
        return f"{name:32} failed: {told['error'].splitlines()[0][:90]}"
    if "planned_bytes" in told:
        return f"{name:32} " + ", ".join(f"{phase} {_gib(size)}" for phase, size in told["planned_bytes"].items())
    if "mfu" in told:
        peak = f", peak {_gib(told['peak_bytes'])}" if "peak_bytes" in told else ""
        return f"{name:32} MFU {told['mfu']:.3f}, {told['trained_tokens_per_second']:.0f} trained tokens/s{peak}"
    if "oneloop" in told:
        engines = [(engine, values) for engine, values in told.items() if isinstance(values, dict)]
        ratio = f", ratio {told['ratio']:.2f}" if "ratio" in told else ""
        return f"{name:32} " + "; ".join(_engine_part(*item) for item in engines) + ratio
    return f"{name:32} " + ", ".join(f"{key} {value:.3g}" for key, value in told.items())


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _engine_part(engine: str, values: Measured) -> str:
    if "error" in values:
        return f"{engine} failed: {values['error'].splitlines()[0][:60]}"
    return f"{engine} {values['tokens_per_second']:.0f} tokens/s, {values['share_of_bound']:.2f} of the bound"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SETUPS, default="0.6b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--case", nargs="+", help="some cases only; a wrong name lists them")
    parser.add_argument("--minutes", type=float, default=8.0, help="no case begins after that many")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    known = cases_of(SETUPS[args.shape])
    args.case = args.case or list(known)
    if unknown := set(args.case) - set(known):
        parser.error(f"--case {' '.join(sorted(unknown))}: there is {', '.join(known)}")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: torch sees none; --device cpu --shape tiny runs anywhere")
    return args


def main() -> None:
    args, start = arguments(), perf_counter()
    setup, device = SETUPS[args.shape], torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    facts = device_facts(device)
    rates = matmul_rates(setup, device)
    best = max(rates, key=lambda size: rates[size])
    bench = Bench(setup, device, rates[best], copy_rate(setup, device))
    print(f"{facts['name']}: {rates[best] / 1e12:.4g} TFLOP/s at {best}, {bench.bytes_per_second / 1e9:.4g} GB/s")
    machine = {"flops_per_second": rates[best], "at": best, "rates": rates, "bytes_per_second": bench.bytes_per_second}
    found: dict[str, Measured] = {}
    told = {"shape": args.shape, "setup": asdict(setup), "date": date.today().isoformat(), "device": facts}
    told |= {"versions": versions(), "machine": machine, "cases": found}
    slug = re.sub(r"[^a-z0-9]+", "-", str(facts["name"]).lower())
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"gpu-{args.shape}-{slug}-{told['date']}.json"
    for name in args.case:
        begun = perf_counter()
        if begun - start > 60 * args.minutes:
            found[name] = {"error": f"not begun: {args.minutes:g} minutes were over"}
        else:
            found[name] = attempted(partial(cases_of(setup)[name], bench))
        forget()
        print(f"{line_of(name, found[name])} [{perf_counter() - begun:.0f} s]", flush=True)
        path.write_text(json.dumps(told, indent=1))  # after each case: a killed run leaves what it had
    print(path)


if __name__ == "__main__":
    main()
