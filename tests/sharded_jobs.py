"""What the processes of tests/parallel do that hold shares of one model; the tests there look at what they return."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import torch

from oneloop.config import Run, default_run
from oneloop.errors import DivergedError
from oneloop.model import pieces
from oneloop.model.learner import Learner
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.save import save_critic, save_merged, save_policy
from oneloop.model.sharded import whole
from oneloop.model.tiny import character_tokenizer
from oneloop.parallel.checkpoint import read_state, write_state
from oneloop.parallel.fsdp import Copied
from oneloop.parallel.launch import Ranks
from oneloop.recipes.execute import execute
from oneloop.recipes.given import Given
from oneloop.recipes.watched import Silent
from oneloop.record.atomic import new_folder
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling
from sharded_cases import Case, batch, learned, learner, weights

METHODS = ["sft", "reward_model", "ppo", "grpo", "dapo", "rloo", "dpo", "kto", "distill"]
"""The others ask a model for the same passes as one of these. What ranks add up, test_world.py asks of every method."""
FULL = [
    *(Case(method) for method in METHODS),
    Case("ppo", "qwen3", "separate"),
    Case("grpo", "qwen3", recompute=True),
    Case("reward_model", "qwen3"),
    Case("dpo", lora=4),
    Case("sft", offload=True, steps=1),
]
GRAD = [Case("ppo"), Case("ppo", "qwen3", "separate"), Case("grpo", "qwen3"), Case("reward_model"), Case("dpo", lora=4)]
ON_FOUR = [("full", Case("ppo", "qwen3")), ("grad", Case("reward_model")), ("full", Case("grpo", lora=4))]
ON_TWO = [("full", case) for case in FULL] + [("grad", case) for case in GRAD]
PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15]]
SAMPLING = Sampling(max_new_tokens=6)
REWARD = "python:sharded_jobs.digits"
RUNS = {
    "dapo": {"shard": "full"},
    "ppo separate": {"shard": "full", "critic": "separate", "gradient_checkpointing": True},
    "dpo lora": {"shard": "grad", "lora": 2},
    "reward_model": {"shard": "grad"},
}
"""By name, whose first word is the method."""


def trained(world, folder: Path) -> dict:
    found = {
        "learned": {
            (mode, str(case)): learned(case, learner(case, folder, world, mode), world) for mode, case in ON_TWO
        },
        "bad": bad_gradient(world, folder),
        "passes": passes(world, folder),
        "drawn": drawn(world, folder),
        "bfloat16": products(world, folder),
    }
    # what one process learns, a share of it on each
    cases = {str(case): case for _, case in ON_TWO + ON_FOUR}
    mine = list(cases.values())[world.rank :: world.ranks]
    return found | {"alone": {str(case): learned(case, learner(case, folder)) for case in mine}}


def loss(models: Learner, rows) -> torch.Tensor:
    return -(models.policy(rows).logprobs * rows.mask).sum() / 30


def bad_gradient(world, folder: Path) -> dict:
    """Rank 1's is NaN."""
    models, rows = learner(Case("sft"), folder, world, "full"), batch(Case("sft"), 0)
    before, outcomes = weights(models), []
    for _ in range(3):
        (loss(models, rows) * (torch.nan if world.rank == 1 else 1.0)).backward()
        try:
            outcomes.append(models.step()["skipped_steps"])
        except DivergedError:
            outcomes.append("stopped")
    after = weights(models)
    return {"outcomes": outcomes, "unchanged": all(torch.equal(before[name], after[name]) for name in before)}


def passes(world, folder: Path) -> dict:
    """Look without gradient between backward and step: the next pass must see the new weights, whole or not."""
    found = {}
    for mode in ("full", "grad"):
        case = Case("ppo", "qwen3")
        models, rows = [learner(case, folder, *cut) for cut in ((world, mode), ())], batch(case, 0)
        said = []
        for one in models:
            mine = rows if one is models[1] else rows.rows(torch.arange(world.rank, len(rows), world.ranks))
            loss(one, mine).backward()
            with torch.no_grad():
                one.policy(rows)
                one.reference(rows)
            one.step()
            with torch.no_grad():
                out = one.policy(rows)
            said.append([out.logprobs, out.values, out.final_values, one.reference(rows)])
        found[mode] = max(float((a - b).abs().max()) for a, b in zip(*said, strict=True))
        found[f"{mode} fast"] = [one.note for one in models]
    return found


def drawn(world, folder: Path) -> dict:
    """Each rank samples its own prompts, before an update and after it: of a sharded policy, from the copy."""
    case, found = Case("sft", "qwen3"), {}
    prompts, seeds = PROMPTS[world.rank :], range(world.rank, len(PROMPTS))
    for name, cut in (("sharded", (world, "full")), ("alone", ())):
        copies: list[Copied] = []
        models = learner(case, folder, *cut, copies=copies)
        engine = Engine(models.model, [1])
        if cut:
            engine = Engine(copies[0].model, [1], refresh=copies[0].refresh)
            found["fast"] = engine._fast and engine._settings is not None
        before = engine.generate(prompts, SAMPLING, seeds)
        learned(case, models, *cut[:1])
        engine.update(1)
        found[name] = [(before, 0), (engine.generate(prompts, SAMPLING, seeds), engine.version)]
    return found


@torch.no_grad()
def products(world, folder: Path) -> dict:
    """In half precision: what the sharded trainer says, the copy to sample from, and one process."""
    case, copies = Case("grpo", lora=4), []
    narrow = {"dtype": torch.bfloat16}
    sharded, alone = learner(case, folder, world, "full", copies=copies, **narrow), learner(case, folder, **narrow)
    dtypes = {parameter.dtype for parameter in copies[0].model.parameters()}
    theirs = dict(alone.model.named_parameters())
    rounded = all(torch.equal(x, theirs[name].to(x.dtype)) for name, x in copies[0].model.named_parameters())
    sampler = Learner(copies[0].model.requires_grad_(True), optimization=sharded.optimization, **narrow)
    rows = batch(case, 0)
    whole, cut, copied = (models.policy(rows).logprobs for models in (alone, sharded, sampler))
    wide = learner(case, folder).policy(rows).logprobs
    return {
        "sharded": float((cut - whole).abs().max()),
        "copied": float((copied - whole).abs().max()),
        "float32": float((wide - whole).abs().max()),
        "dtypes": dtypes,
        "rounded": rounded,
    }


SAVED_CASES = [Case("ppo", "qwen3"), Case("ppo", critic="separate"), Case("reward_model"), Case("dpo", lora=4)]
SAVED, DONE = 1, 3


def place(folder: Path, case: Case) -> Path:
    return folder / "saved" / str(case).replace(" ", "-")


def save(path: Path, models, world) -> None:
    with new_folder(path, world) as temporary:
        save_policy(temporary / "policy", models.model, character_tokenizer(), world)
        save_merged(temporary / "final", models.model, character_tokenizer(), world)
        if models.critic is not None:
            save_critic(temporary / "critic", models.critic, world)
        write_state(temporary / "resume", models, {"step": SAVED}, world)


def state(models) -> dict[str, torch.Tensor]:
    """Weights and moments."""
    found = weights(models)
    for name, parameter in models.named_parameters().items():
        for key, value in models.optimizer.state[parameter].items():
            found[f"{name}|{key}"] = whole(value).clone()
    return found


def resumed(case: Case, folder: Path, *cut):
    """State as it was loaded, and weights after the steps that were left."""
    models = learner(case, folder, *cut, start=place(folder, case))
    assert read_state(place(folder, case) / "resume", models) == {"step": SAVED}
    return {"state": state(models), "learned": learned(case, models, *cut[:1], steps=(SAVED, DONE))[0]}


def saved(world, folder: Path) -> dict:
    found = {}
    for case in SAVED_CASES:
        models = learner(case, folder, world, "full")
        learned(case, models, world, steps=(0, SAVED))
        save(place(folder, case), models, world)
        kept = state(models)
        on = learned(case, models, world, steps=(SAVED, DONE))[0]
        found[str(case)] = {"state": kept, "learned": on, "resumed": resumed(case, folder, world, "full")}
    return found | {"full": failing(world, folder)}


def failing(world, folder: Path) -> str:
    """Rank 1's disk is full while a folder is written anew; the old one stays."""
    models, path = learner(SAVED_CASES[0], folder, world, "grad"), folder / "twice"

    def full(*given, **named):
        raise OSError(28, "No space left on device")

    with new_folder(path, world) as temporary:
        (temporary / f"whole-{world.rank}").write_text("old")
    if world.rank == 1:
        pieces.save_file = full
    try:
        save(path, models, world)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "saved"


def run_of(name: str, folder: Path, out: Path, **changes) -> Run:
    """A run of two steps over rows of several lengths, with evaluations, the best model and checkpoints."""
    run = replace(
        default_run(name.split()[0]), model="scratch:tiny", data="task:chain_sum", out=str(out), steps=2,
        prompts_per_step=5, minibatch=2, data_size=12, eval_size=5, eval_every=1, save_every=1, learning_rate=1e-3,
        critic_learning_rate=1e-3, max_new_tokens=6, max_tokens=40, max_refills=2, keep_best=True,
    )  # fmt: skip
    if run.algorithm in ("dapo", "ppo"):
        run = replace(run, reward=(REWARD,), eval_reward=(REWARD,), group_size=max(run.group_size // 2, 1))
    if run.algorithm in ("ppo", "dpo", "reward_model"):
        run = replace(run, model=str(folder / "tiny"))
    return replace(run, **(RUNS[name] | changes))


def digits(completions, **columns) -> list[float]:
    """1 for the few answers that begin like a number: most groups of a model that knows nothing are dead."""
    return [float(text[:1] in "0123456789abcdefgh") for text in completions]


def carried_out(run: Run, world=None, reward=digits) -> None:
    execute(run, Silent(), Given(functions={REWARD: reward}), ranks=Ranks(world))


def broken_off(world, folder: Path) -> str:
    """The reward of rank 1 fails in the second step."""

    def reward(completions, trainer_state, **columns):
        if world.rank == 1 and trainer_state.global_step == 1:
            raise ValueError("no more")
        return digits(completions)

    name = next(iter(RUNS))
    run = run_of(name, folder, folder / "run broken", ranks=2, save_every=0, eval_every=0, keep_best=False)
    try:
        carried_out(run, world, reward)
    except Exception as error:
        return "\n".join([type(error).__name__, str(error), *getattr(error, "__notes__", [])])
    return "finished"


def runs(world, folder: Path) -> None:
    """Whole runs; and one that is cut short and gone on with."""
    if world.rank == 0:
        save_policy(folder / "tiny", load_policy("scratch:tiny", seed=1), load_tokenizer("scratch:tiny"))
    world.collect([0])
    for name in RUNS:
        carried_out(run_of(name, folder, folder / f"run {name}", ranks=2), world)
    name = next(iter(RUNS))
    carried_out(run_of(name, folder, folder / "run cut", ranks=2, steps=1), world)
    if world.rank == 0:
        copytree(folder / "run cut", folder / "run cut alone")
    world.collect([0])
    carried_out(run_of(name, folder, folder / "run cut", ranks=2, resume=True), world)


def runs_alone(folder: Path) -> None:
    """By one process, after `runs`."""
    for name in RUNS:
        carried_out(run_of(name, folder, folder / f"run {name} alone", shard="none"))
    carried_out(run_of(next(iter(RUNS)), folder, folder / "run cut alone", shard="none", resume=True))


def two(world, folder: Path) -> dict:
    runs(world, folder)
    found = {"broken": broken_off(world, folder), "saved": saved(world, folder)}
    return found | trained(world, folder)


def four(world, folder: Path) -> dict:
    """After `two`, whose checkpoints it reads."""
    return {
        "learned": {
            (mode, str(case)): learned(case, learner(case, folder, world, mode), world) for mode, case in ON_FOUR
        },
        "resumed": {str(case): resumed(case, folder, world, "full") for case in SAVED_CASES[::2]},
    }
