"""Work for processes that are ranks: what each runs must be importable by a fresh interpreter."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from oneloop.config import Run, default_run
from oneloop.errors import DivergedError, OneloopError
from oneloop.methods import LEARNS_FROM
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.save import save_policy
from oneloop.parallel.launch import ALONE, Ranks
from oneloop.parallel.world import Distributed, check_replicas
from oneloop.recipes.execute import execute
from oneloop.recipes.given import Given
from oneloop.recipes.watched import Silent

REWARD, SPREAD = "python:ranked.digits", "python:ranked.letters"


def digits(completions: Sequence[str], **columns: object) -> list[float]:
    """1 for the few answers that begin like a number: most groups of a model that knows nothing are dead."""
    return [float(text[:1] in "0123456789abcdefgh") for text in completions]


def letters(completions: Sequence[str], **columns: object) -> list[float]:
    """Hardly ever the same for two answers of a group."""
    return [sum(map(ord, text)) / 100 for text in completions]


def methods(ranks: int) -> dict[str, dict]:
    """Runs by name: what is trained, and how it differs from `small`."""
    if ranks == 4:
        return {
            # one group a step: three ranks have none, and where it is dead nobody has
            "dapo": {"prompts_per_step": 2, "max_refills": 1},
            "ppo": {"critic": "separate"},
            "dpo": {"lora": 2},
        }
    # with its KL in the reward, a group of equal rewards has rounding for an advantage; AdamW makes whole steps of it
    even = {"rloo": {"reward": (SPREAD,)}}
    return {name: {} for name in LEARNS_FROM} | even | {"ppo": {"set": ("target_kl=0.02",), "epochs": 3}}


def small(name: str, folder: Path, out: Path, **changes) -> Run:
    """Two steps of two updates over rows of several lengths, with an evaluation at the end."""
    run = replace(
        default_run(name), model=str(folder / "model"), data="task:chain_sum", out=str(out), steps=2,
        prompts_per_step=5, minibatch=3, data_size=12, eval_size=5, learning_rate=1e-3,
        critic_learning_rate=1e-3, max_new_tokens=6, max_tokens=20, max_refills=2,
    )  # fmt: skip
    if LEARNS_FROM[name] == "prompts" and name != "distill":
        run = replace(run, reward=(REWARD,), eval_reward=(REWARD,), group_size=max(run.group_size // 2, 1))
    if name in ("trpo", "npg"):  # their steps have no learning rate
        run = replace(run, learning_rate=default_run(name).learning_rate)
    if name == "distill":
        run = replace(run, teacher=str(folder / "teacher"))
    return replace(run, **changes)


def models(folder: Path) -> None:
    """A policy and a teacher, in Hugging Face layout."""
    for name, seed in (("model", 1), ("teacher", 2)):
        (folder / name).mkdir()
        save_policy(folder / name, load_policy("scratch:tiny", seed=seed), load_tokenizer("scratch:tiny"))


def started(run: Run, ranks: Ranks) -> None:
    execute(run, Silent(), Given(functions={REWARD: digits, SPREAD: letters}), ranks=ranks)


def joined(rank: int, ranks: int, folder: Path) -> Distributed:
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{ranks}", rank=rank, world_size=ranks)
    return Distributed()


def every_method(rank: int, ranks: int, folder: str) -> None:
    """All runs together, then each of them by one process, which the ranks share out."""
    place = Path(folder)
    world = joined(rank, ranks, place)
    torch.save(primitives(world) | {"broken": broken(world)}, place / f"found{ranks}_{rank}.pt")
    for name, changes in methods(ranks).items():
        started(small(name, place, place / f"{name}{ranks}", **changes), Ranks(world))
    resumed(place, Ranks(world))
    dist.destroy_process_group()  # transformers saves nothing on any but the first rank of a group
    for name in list(methods(ranks))[rank::ranks]:
        started(small(name, place, place / f"{name}{ranks}_alone", **methods(ranks)[name]), ALONE)


def resumed(place: Path, ranks: Ranks) -> None:
    """Half of GRPO's run, then the rest: by two ranks, and by four from where two had stopped."""
    run = small("grpo", place, place / "half2", steps=1)
    if ranks.count == 2:
        started(run, ranks)
        started(replace(run, resume=True, steps=2), ranks)
        started(replace(run, out=str(place / "half4")), ranks)
    else:
        started(replace(run, out=str(place / "half4"), resume=True, steps=2), ranks)


def primitives(world: Distributed) -> dict:
    rank = world.rank
    stats = {"a": rank + 0.1, "b/max": float(rank), **({"own": 1.0} if rank == 1 else {})}
    return {
        "share": [world.share(list(range(count))) for count in (0, 1, world.ranks, world.ranks + 1)],
        "collect": [
            world.collect([{"é": place / 3} for place in world.share(list(range(count))) if place is not None])
            for count in (0, 1, world.ranks, world.ranks + 1)
        ],
        "add": world.add(torch.full((2, 3), float(rank + 1))),
        "sum": world.sum(stats),
        "nan": world.sum({"x/max": torch.nan if rank == 1 else 1.0, "y": float("inf")}),
        "odd": _odd(world),
        "agree": world.agree({"rank": rank, "words": ["ü", None, 0.1]}),
    }


def _odd(world: Distributed) -> str:
    """What is said when the last rank has one bit of one weight otherwise."""
    weights = [torch.ones(3), torch.arange(4.0)]
    check_replicas(world, weights)
    if world.rank == world.ranks - 1:
        weights[1][0] = 1e-30
    try:
        check_replicas(world, weights)
    except OneloopError as error:
        return str(error)
    return ""


def broken(world: Distributed) -> dict:
    """Rank 1's gradient is NaN; one parameter is reached on rank 0 alone, one on no rank."""
    learner = Learner(
        load_policy("scratch:tiny", seed=1), world=world,
        optimization=Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=9, max_grad_norm=1e9),
    )  # fmt: skip
    parameters = list(learner.named_parameters().values())
    before = [parameter.detach().clone() for parameter in parameters]
    outcomes: list[object] = []
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, torch.nan if world.rank == 1 else 1.0)
        try:
            outcomes.append(learner.step()["skipped_steps"])
        except DivergedError:
            outcomes.append("stopped")
    same = all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    moments = len(learner.optimizer.state)
    parameters[0].grad = torch.ones_like(parameters[0]) if world.rank == 0 else None
    learner.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, parameters, strict=True)]
    return {"outcomes": outcomes, "unchanged": same, "moments": moments, "moved": sum(moved), "first": moved[0]}
