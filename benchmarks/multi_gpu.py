"""A GRPO step of Qwen3-shaped random models on several GPUs: by ranks and by how the model is shared out.

    python benchmarks/multi_gpu.py --shape 4b --ranks 1 2 4 8
    python benchmarks/multi_gpu.py --shape 4b --ranks 8 --shard grad full --gradient-checkpointing
    python benchmarks/multi_gpu.py --shape tiny --device cpu --ranks 2     # shows that every line works, and no speed

Each number of ranks is a torchrun of its own, and each way in it starts anew. Told for each, of rank 0 and of the rank
that needs most: seconds of sampling, of what the ranks tell each other, of passes and of the update; tokens a second of
all ranks; bytes at the peak of each phase; what a checkpoint takes. Every rank gets an equal share of one batch, which
is the same for any number of them: ranks × tokens a second against one rank's is the efficiency.

Needs torch, transformers and oneloop, and no network. Passes run in bfloat16 autocast over float32 weights.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from cases.models import word_tokenizer
from gpu.setups import (
    SETUPS,
    Bench,
    Measured,
    batch_of,
    device_facts,
    forget,
    prompts_of,
    random_model,
    seconds_of,
    watched,
)
from processes.measured import versions
from torch.distributed.device_mesh import init_device_mesh

from oneloop.algorithms import GRPO
from oneloop.loop import dealt
from oneloop.model.learner import Learner, Optimization
from oneloop.model.save import save_policy
from oneloop.parallel.checkpoint import write_state
from oneloop.parallel.fsdp import Copied, Sharding
from oneloop.parallel.launch import joined
from oneloop.ports import SingleProcess, World
from oneloop.record.atomic import new_folder
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling

RESULTS = Path(__file__).parent / "results"
ALGORITHM = replace(GRPO, kl=None)
WAYS = ("none", "grad", "full")


def measured(way: str, bench: Bench, world: World, recompute: bool) -> Measured:
    """Steps of one way to share the model out; the first is the warm-up."""
    told: Measured = {"seconds": {}, "peak_bytes": {}}
    policy = random_model(bench)
    copied = None if way == "none" else Copied(policy, torch.bfloat16)
    shard = None
    if way != "none":
        shard = Sharding(
            mesh=init_device_mesh(bench.device.type, (world.ranks,)), mode="grad" if way == "grad" else "full"
        )
    load = bench.setup.train
    learner = Learner(
        policy,
        optimization=Optimization(learning_rate=1e-6, critic_learning_rate=1e-6, total_updates=load.steps),
        dtype=torch.bfloat16,
        max_tokens=max(load.max_tokens),
        recompute=recompute,
        world=world,
        shard=shard,
    )
    if learner.note:
        raise RuntimeError(learner.note)
    engine = _engine(learner, copied, bench)
    for number in range(load.steps + 1):
        if number == 1:
            told = {"seconds": {}, "peak_bytes": {}}
        _step(number, learner, engine, bench, world, told)
    _saving(learner, bench, world, told)
    return _of_all(told, bench, world)


def _engine(learner: Learner, copied: Copied | None, bench: Bench) -> Engine:
    ends = [bench.setup.shape.vocabulary]  # no such token: all answers are as long as they may be
    if copied is None:
        return Engine(learner.model, ends, dtype=torch.bfloat16)
    return Engine(copied.model, ends, dtype=torch.bfloat16, refresh=copied.refresh)


def _step(number: int, learner: Learner, engine: Engine, bench: Bench, world: World, told: Measured) -> None:
    load, drawn = bench.setup.train, bench.setup.decode
    prompts = prompts_of(bench.setup)[world.rank :: world.ranks]
    sampling = Sampling(max_new_tokens=drawn.limit)
    batch = batch_of(load.lengths(number), load.group, bench)
    ready = ALGORITHM.prepare(batch, learner, one_update=True)

    def passes() -> None:
        for micro, mine in dealt(world, ready.microbatches(max(load.max_tokens))):
            ALGORITHM.loss(learner.policy(micro), micro, ready.size).counted(mine).value.backward()

    phases = {
        "refresh": lambda: engine.update(number),
        "rollout": lambda: engine.generate(prompts, sampling, range(len(prompts))),
        "passes": passes,
        "update": learner.step,
    }
    for name, phase in phases.items():
        memory: Measured = {}
        world.collect([0])  # all begin together
        with watched(bench.device, memory):
            seconds = seconds_of(bench.device, phase)
        told["seconds"].setdefault(name, []).append(seconds)
        told["peak_bytes"][name] = max(told["peak_bytes"].get(name, 0), memory.get("peak_bytes", 0))


def _saving(learner: Learner, bench: Bench, world: World, told: Measured) -> None:
    """A checkpoint, written together where the model is shared out."""
    crew = {"writers": world} if learner.sharded else {}
    with tempfile.TemporaryDirectory() as root:
        path = Path(world.agree(root)) / "checkpoint"

        def save() -> None:
            with new_folder(path, **crew) as folder:
                save_policy(folder / "policy", learner.model, word_tokenizer(64), *crew.values())
                write_state(folder / "resume", learner, {}, *crew.values())

        told["seconds"]["saving"] = [seconds_of(bench.device, save) if crew or world.rank == 0 else 0.0]
        world.collect([0])
        told["checkpoint_bytes"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        world.collect([0])


def _of_all(told: Measured, bench: Bench, world: World) -> Measured:
    """The slowest rank's seconds, the fullest rank's bytes, the tokens of all."""
    ranks = world.collect([told])
    names = told["seconds"]
    seconds = {name: max(median(one["seconds"][name]) for one in ranks) for name in names}
    load = bench.setup.train
    trained = median(sum(answer for _, answer in load.lengths(step + 1)) for step in range(load.steps))
    drawn = bench.setup.decode.rows * bench.setup.decode.limit
    return {
        "seconds": seconds,
        "peak_bytes": {name: max(one["peak_bytes"][name] for one in ranks) for name in told["peak_bytes"]},
        "drawn_tokens_per_second": drawn / (seconds["refresh"] + seconds["rollout"]),
        "trained_tokens_per_second": trained / (seconds["passes"] + seconds["update"]),
        "checkpoint_bytes": told["checkpoint_bytes"],
    }


def as_rank(args: argparse.Namespace) -> None:
    """One process of a torchrun, or the only one."""
    if args.device == "cpu":
        torch.set_num_threads(1)
    with joined(1, args.device, 600.0) as ranks:
        world = ranks.world or SingleProcess()
        bench = Bench(SETUPS[args.shape], torch.device(args.device), 1.0, 1.0)
        ways = args.shard if world.ranks > 1 else ["none"]
        found: dict[str, Measured] = {}
        for way in ways:
            found[way] = measured(way, bench, world, args.gradient_checkpointing)
            forget()
        if world.rank == 0:
            args.into.write_text(json.dumps({"device": device_facts(bench.device), "ways": found}))


def on_ranks(count: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a torchrun of that many measured; its error in words where it failed."""
    into = folder / f"{count}.json"
    own = [str(Path(__file__)), "--shape", args.shape, "--device", args.device, "--into", str(into)]
    own += ["--shard", *args.shard, *(["--gradient-checkpointing"] if args.gradient_checkpointing else [])]
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)] if count > 1 else []
    done = subprocess.run([sys.executable, *start, *own], capture_output=True, text=True)
    if done.returncode or not into.is_file():
        return {"error": done.stderr[-2000:]}
    return json.loads(into.read_text())


def line_of(count: int, way: str, told: Measured) -> str:
    seconds = ", ".join(f"{name} {value:.3g} s" for name, value in told["seconds"].items())
    peak = max(told["peak_bytes"].values()) / 2**30
    return (
        f"{count} ranks, {way:4}: {seconds}; {told['trained_tokens_per_second']:.0f} trained and "
        f"{told['drawn_tokens_per_second']:.0f} drawn tokens/s" + (f"; peak {peak:.1f} GiB a rank" if peak else "")
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SETUPS, default="0.6b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shard", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and args.into is None and torch.cuda.device_count() < max(args.ranks):
        parser.error(
            f"--ranks {max(args.ranks)}: torch sees {torch.cuda.device_count()} GPUs; "
            "--device cpu --shape tiny --ranks 2 runs anywhere"
        )
    return args


def main() -> None:
    args = arguments()
    if args.into is not None:
        return as_rank(args)
    told: dict[str, Any] = {"shape": args.shape, "setup": asdict(SETUPS[args.shape]), "versions": versions()}
    told |= {"date": date.today().isoformat(), "gradient_checkpointing": args.gradient_checkpointing, "ranks": {}}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "unknown.json"
    with tempfile.TemporaryDirectory() as folder:
        for count in args.ranks:
            found = told["ranks"][str(count)] = on_ranks(count, args, Path(folder))
            if "error" in found:
                print(f"{count} ranks failed: {found['error'].strip().splitlines()[-1:]}", flush=True)
                continue
            for way, values in found["ways"].items():
                print(line_of(count, way, values), flush=True)
            slug = re.sub(r"[^a-z0-9]+", "-", str(found["device"]["name"]).lower())
            path = args.out / f"multi-gpu-{args.shape}-{slug}-{told['date']}.json"
            path.write_text(json.dumps(told, indent=1))
    print(path)


if __name__ == "__main__":
    main()
