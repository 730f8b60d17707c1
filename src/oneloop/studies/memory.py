"""The memory of PPO's four models against GRPO and DPO: each measured in a process of its own, beside its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from oneloop.config import Run, default_run
from oneloop.errors import OutOfMemory
from oneloop.loop import train
from oneloop.model.load import load_reward_model
from oneloop.model.save import save_policy
from oneloop.model.tiny import Scratch, character_tokenizer, scratch_model
from oneloop.plan.bill import bill
from oneloop.plan.plan import assumed_lengths
from oneloop.recipes.build import assemble
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.meter import forget_peak, peak_resident, resident
from oneloop.recipes.resolve import kind_of, resolved
from oneloop.studies.judge import above, every, inside, minus, said
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

SHAPE, QUICK_SHAPE = Scratch(hidden=384, layers=8, heads=6), Scratch(hidden=96, layers=2, heads=4)
STEPS, QUICK_STEPS = 2, 1
"""The second begins with the optimizer's moments there."""
AT_A_TIME = 2
"""Processes: none counts the pages of another."""
PPO, RULE, GRPO, DPO, SFT = "PPO, learned reward", "PPO, rule as reward", "GRPO", "DPO", "SFT"
ANSWERS = {"prompts_per_step": 2, "group_size": 4, "minibatch": 1, "max_new_tokens": 12, "max_tokens": 64}
FIXED = {"prompts_per_step": 4, "minibatch": 2, "max_tokens": 64}
"""Few tokens, so that models and not activations decide."""
SETTINGS: Mapping[str, tuple[str, dict[str, Any]]] = {
    PPO: ("ppo", {**ANSWERS, "critic": "separate", "epochs": 1}),
    RULE: ("ppo", {**ANSWERS, "critic": "separate", "epochs": 1}),
    GRPO: ("grpo", ANSWERS),
    DPO: ("dpo", FIXED),
    SFT: ("sft", FIXED),
}
TRAINED, FROZEN = 4, 1
"""Times its own weights: those, gradients and two moments; or the weights alone."""
MODELS = {PPO: 2 * TRAINED + 2 * FROZEN, RULE: 2 * TRAINED + FROZEN, GRPO: TRAINED + FROZEN, DPO: TRAINED, SFT: TRAINED}
"""Weights that the models come to, by what trains them: policy and critic, reference and reward model frozen."""
MEASURED, PLANNED, STANDING = "measured", "oneloop plan", "weights, gradients and moments of its models"
PRELOADED = ["oneloop.studies.memory", "oneloop.experience.pairs", "pyarrow.parquet"]


def run(seeds: Sequence[int], quick: bool) -> Table:
    points: list[Point] = []
    with TemporaryDirectory(prefix="oneloop-memory-") as place:
        weights = made(Path(place), QUICK_SHAPE if quick else SHAPE)
        for name in SETTINGS:
            runs = [run_of(name, seed, Path(place), QUICK_STEPS if quick else STEPS) for seed in seeds]
            points.append(Point(MEASURED, name, tuple(taken / weights for taken in measured(name, runs))))
            planned = bill(runs[0], assumed_lengths(runs[0])).bytes / weights  # of any seed
            points.append(Point(PLANNED, name, (planned,) * len(seeds)))
            points.append(Point(STANDING, name, (float(MODELS[name]),) * len(seeds)))
    size = Panel("memory above that before models are loaded, in weights of one model", "", tuple(points))
    return {"size": size, "weights": Panel("weights of one model, MiB", "", (_weights(weights, len(seeds)),))}


def _weights(count: int, seeds: int) -> Point:
    return Point("policy", "all", (count / 2**20,) * seeds)


def made(folder: Path, shape: Scratch) -> int:
    """A policy and a reward model of the same shape in a folder; returns the bytes of the policy's weights."""
    tokenizer = character_tokenizer()
    policy = scratch_model(shape, tokenizer, 0)
    save_policy(folder / "policy", policy, tokenizer)
    save_policy(folder / "reward", load_reward_model(folder / "policy"), tokenizer)
    return sum(parameter.nbytes for parameter in policy.parameters())


def run_of(name: str, seed: int, folder: Path, steps: int) -> Run:
    algorithm, settings = SETTINGS[name]
    learned = str(folder / "reward") if name == PPO else ""
    start = replace(default_run(algorithm), model=str(folder / "policy"), reward_model=learned, data_size=64, seed=seed)
    return replace(start, steps=steps, eval_size=4, **settings)


def measured(name: str, runs: Sequence[Run]) -> list[int]:
    """Bytes of each, in a process of its own that has the libraries and nothing else."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda one: alone(partial(most, one), f"{name}, seed {one.seed}"), runs))


def alone(work: Callable[[], int], told: str) -> int:
    """What `work` returns in a new process.

    Raises: OutOfMemory where the process was killed; it names the run by `told`.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # one executor a run: of several in one, nobody could say which was killed
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(work).result()
        except BrokenProcessPool as error:
            raise OutOfMemory(
                f"study memory: the process of {told} was killed before it ended, most likely for want of memory; "
                "leave more of it free and run the study again"
            ) from error


def most(one: Run) -> int:
    """The most that is resident while models are loaded and trained, above what was before."""
    algorithm = resolved(one)
    inputs = read_inputs(one, kind_of(algorithm))
    with closed(inputs):
        forget_peak()
        start = resident()
        parts = assemble(one, algorithm, inputs, Kept())
        train(
            algorithm, parts.experience, parts.learner, Kept(), steps=one.steps, minibatch=one.groups_per_update,
            max_tokens=one.max_tokens, seed=one.seed,
        )  # fmt: skip
        return peak_resident() - start


@contextmanager
def closed(inputs: Any) -> Iterator[None]:
    try:
        yield
    finally:
        inputs.close()


def _at(table: Table, name: str, series: str = MEASURED) -> Point:
    return table["size"].at(series, name)


def _most(table: Table) -> Judged:
    names = (PPO, RULE, GRPO, DPO)
    found = [_at(table, name) for name in names]
    verdict = every(above(minus(more, less).interval, 0) for more, less in pairwise(found))
    told = ", ".join(f"{said(point)} ({name})" for name, point in zip(names, found, strict=True))
    return Judged(verdict, f"times the weights of one model: {told}")


def _critic(table: Table) -> Judged:
    saved = minus(_at(table, RULE), _at(table, GRPO))
    return Judged(
        inside(saved.interval, 0.8 * TRAINED, 1.2 * TRAINED),
        f"PPO with a rule as reward takes {said(saved)} times the weights of one model more than GRPO, of which "
        f"{TRAINED} are the critic's weights, gradients and moments",
    )


def _reward(table: Table) -> Judged:
    more = minus(_at(table, PPO), _at(table, RULE))
    return Judged(
        inside(more.interval, 0.8 * FROZEN, 1.2 * FROZEN), f"with a reward model PPO takes {said(more)} weights more"
    )


def _two(table: Table) -> Judged:
    more = minus(_at(table, DPO), _at(table, SFT))
    return Judged(
        above(more.interval, 0.5 * FROZEN),
        f"DPO takes {said(more)} weights more than SFT, which has one model: pairs stand fixed, so that the policy "
        "itself answers for the reference, once, before the first step",
    )


def _plan(table: Table) -> Judged:
    verdicts, told = [], []
    for name in SETTINGS:
        planned, found = _at(table, name, PLANNED), _at(table, name)
        verdicts.append(inside(minus(planned, found).interval, -0.2 * found.mean, 0.2 * found.mean))
        told.append(f"{said(planned)} planned and {said(found)} measured ({name})")
    return Judged(every(verdicts), ", ".join(told))


STUDY = Study(
    name="memory",
    title="The memory of PPO's four models against GRPO and DPO",
    setting=(
        f"A Llama of {SHAPE.layers} layers and {SHAPE.hidden} numbers in float32, AdamW, {STEPS} steps of each method "
        "on the built-in task, in a process of its own that had loaded the libraries and nothing else. Measured is the "
        "most that was resident, above what was before the models were loaded. Few tokens in a pass (64), so that "
        "models decide. PPO has a critic and, with a learned reward, a reward model of its own, all of the policy's "
        "size. A seed is a run."
    ),
    claims=(
        Claim(
            "PPO's four models take the most, PPO with a rule less, GRPO less than that, and DPO the least",
            "founding documents, four models in memory",
            _most,
        ),
        Claim(
            "Leaving out the critic saves four times a model's weights (within a fifth)",
            "founding documents, GRPO without a critic",
            _critic,
        ),
        Claim(
            "A rule in the place of a reward model saves a model's weights (within a fifth)",
            "founding documents, rewards by rules",
            _reward,
        ),
        Claim(
            "DPO has two models in memory, the policy and its reference",
            "founding documents, on DPO; arXiv:2305.18290",
            _two,
        ),
        Claim("`oneloop plan` says within a fifth what each will take", "oneloop, docs/memory.md", _plan),
    ),
    run=run,
    seeds=tuple(range(5)),
)
