"""Models that are cut over real processes learn what one process learns, whatever the method, and say the same."""

from pathlib import Path

import pytest
import torch

from oneloop.algorithms import ALGORITHMS
from oneloop.errors import DivergedError
from oneloop.model.learner import Learner
from oneloop.parallel.fsdp import Copied
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling
from spawned import on_processes
from sharded_cases import Case, batch, learned, learner, weights, write_models

FULL = [
    *(Case(method) for method in ALGORITHMS),
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


def two(world, folder: Path) -> dict:
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


def four(world, folder: Path) -> dict:
    return {(mode, str(case)): learned(case, learner(case, folder, world, mode), world) for mode, case in ON_FOUR}


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
    copied = Learner(copies[0].model, optimization=sharded.optimization, **narrow)
    rows = batch(case, 0)
    whole, cut, sampler = (models.policy(rows).logprobs for models in (alone, sharded, copied))
    wide = learner(case, folder).policy(rows).logprobs
    return {
        "sharded": float((cut - whole).abs().max()),
        "copied": float((sampler - whole).abs().max()),
        "float32": float((wide - whole).abs().max()),
        "dtypes": {parameter.dtype for parameter in copies[0].model.parameters()},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("sharded")
    write_models(made)
    return made


@pytest.fixture(scope="module")
def on_two(folder) -> list[dict]:
    return on_processes(2, two, folder)


@pytest.fixture(scope="module")
def alone(on_two) -> dict:
    return on_two[0]["alone"] | on_two[1]["alone"]


def check_equal(found, expected, start) -> None:
    """To what the order of additions leaves: Adam divides by √v, so that where a gradient is almost 0 its rounding is
    a large share of the update."""
    (ours, logged), (theirs, wanted) = found, expected
    assert ours.keys() == theirs.keys() == start.keys()
    apart = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    assert float(apart.max()) <= 5e-5 and float(apart.mean()) <= 2e-8
    assert max(float((theirs[name] - start[name]).abs().max()) for name in start) > 9e-4, "training moved the weights"
    for row, other in zip(logged, wanted, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {name for name in row if name.startswith("time/")} - {"tokens_per_second"}:
            assert row[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize(("mode", "case"), ON_TWO, ids=str)
def test_two_ranks_learn_what_one_process_learns(on_two, alone, folder, mode: str, case: Case) -> None:
    start = weights(learner(case, folder))
    for mine in on_two:
        check_equal(mine["learned"][mode, str(case)], alone[str(case)], start)


def test_four_ranks_of_which_some_idle(alone, folder) -> None:
    """More ranks than some optimizer step has microbatches."""
    for mine in on_processes(4, four, folder):
        for (_, name), found in mine.items():
            case = next(case for _, case in ON_FOUR if str(case) == name)
            check_equal(found, alone[name], weights(learner(case, folder)))


def test_a_bad_gradient_on_one_rank_is_skipped_on_all(on_two) -> None:
    for mine in on_two:
        assert mine["bad"] == {"outcomes": [1, 1, "stopped"], "unchanged": True}


@pytest.mark.parametrize("mode", ["full", "grad"])
def test_a_pass_without_gradient_leaves_nothing_whole_behind(on_two, mode: str) -> None:
    """What stayed whole would be what the next pass reads: the weights before the update."""
    for mine in on_two:
        assert mine["passes"][mode] < 2e-5
        assert mine["passes"][f"{mode} fast"] == ["", ""], "rows are packed, and the head is read in chunks"


def test_a_copy_draws_what_the_weights_draw(on_two) -> None:
    for mine in on_two:
        assert mine["drawn"]["fast"], "the copy runs as a model does that was never cut"
        (before, _), (after, version) = mine["drawn"]["sharded"]
        assert version == 1 and [row.tokens for row in before] != [row.tokens for row in after]
        for ours, theirs in zip(mine["drawn"]["sharded"], mine["drawn"]["alone"], strict=True):
            assert [row.tokens for row in ours[0]] == [row.tokens for row in theirs[0]]


def test_half_precision_means_one_thing(on_two) -> None:
    for mine in on_two:
        said = mine["bfloat16"]
        assert said["sharded"] < 1e-6 and said["copied"] < 1e-6 < 1e-4 < said["float32"]
        assert said["dtypes"] == {torch.float32, torch.bfloat16}
