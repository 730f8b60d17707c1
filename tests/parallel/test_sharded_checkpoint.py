"""What sharded ranks save together: Hugging Face's layout, read by any number of ranks, whole or not there at all."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from oneloop.errors import OneloopError
from oneloop.model import pieces
from oneloop.model.save import save_critic, save_merged, save_policy
from oneloop.model.sharded import whole
from oneloop.model.tiny import character_tokenizer
from oneloop.parallel.checkpoint import read_state, write_state
from oneloop.record.atomic import new_folder, verify
from spawned import on_processes
from sharded_cases import Case, learned, learner, weights, write_models

CASES = [Case("ppo", "qwen3"), Case("ppo", critic="separate"), Case("reward_model"), Case("dpo", lora=4)]
SAVED, DONE = 1, 3
every_case = pytest.mark.parametrize("case", CASES, ids=str)


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


def two(world, folder: Path) -> dict:
    found = {}
    for case in CASES:
        models = learner(case, folder, world, "full")
        learned(case, models, world, steps=(0, SAVED))
        save(place(folder, case), models, world)
        kept = state(models)
        on = learned(case, models, world, steps=(SAVED, DONE))[0]
        found[str(case)] = {"state": kept, "learned": on, "resumed": resumed(case, folder, world, "full")}
    return found | {"full": failing(world, folder)}


def failing(world, folder: Path) -> str:
    """Rank 1's disk is full while a folder is written anew; the old one stays."""
    models, path = learner(CASES[0], folder, world, "grad"), folder / "twice"

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


def four(world, folder: Path) -> dict:
    return {str(case): resumed(case, folder, world, "full") for case in CASES[::2]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("saved")
    write_models(made)
    return made


@pytest.fixture(scope="module")
def on_two(folder) -> list[dict]:
    return on_processes(2, two, folder)


def check_bits(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@every_case
def test_two_ranks_resume_as_if_they_had_never_stopped(on_two, case: Case) -> None:
    for mine in on_two:
        check_bits(mine[str(case)]["resumed"]["state"], mine[str(case)]["state"])
        check_bits(mine[str(case)]["resumed"]["learned"], mine[str(case)]["learned"])


@every_case
def test_one_process_goes_on_from_what_two_saved(on_two, folder, case: Case) -> None:
    verify(place(folder, case))
    expected, found = on_two[0][str(case)], resumed(case, folder)
    check_bits(found["state"], expected["state"])
    check_near(found["learned"], expected["learned"])


def test_four_ranks_go_on_from_what_two_saved(on_two, folder) -> None:
    for mine in on_processes(4, four, folder):
        for name, found in mine.items():
            check_bits(found["state"], on_two[0][name]["state"])
            check_near(found["learned"], on_two[0][name]["learned"])


def check_near(ours, theirs) -> None:
    """Ranks add in another order, and Adam divides by √v: two optimizer steps and more later, almost all is equal."""
    apart = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    assert float(apart.max()) <= 5e-5 and float(apart.mean()) <= 2e-8


@every_case
def test_transformers_alone_loads_what_ranks_wrote(on_two, folder, case: Case) -> None:
    kind = AutoModelForSequenceClassification if case.method == "reward_model" else AutoModelForCausalLM
    final = place(folder, case) / "final"
    shards = sorted(file.name for file in final.glob("*.safetensors"))
    assert shards == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.loads((final / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == sum(x.nbytes for file in shards for x in load_file(final / file).values())
    model, report = kind.from_pretrained(final, output_loading_info=True)
    assert not any(report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == json.loads((final / "config.json").read_text())["architectures"][0]
    ids = torch.tensor([[5, 6, 7, 8]])
    trained = learner(case, folder, start=place(folder, case)).model
    torch.testing.assert_close(model(ids).logits, trained.eval()(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_separate_critic_loads_too(on_two, folder) -> None:
    saved = place(folder, CASES[1]) / "critic"
    model = AutoModelForTokenClassification.from_pretrained(saved)
    for name, value in model.named_parameters():
        assert torch.equal(value, on_two[0][str(CASES[1])]["state"][f"critic.{name}"]), name


def test_a_full_disk_on_one_rank_fails_on_all_and_leaves_the_old_folder(on_two, folder) -> None:
    assert on_two[1]["full"] == "OSError: [Errno 28] No space left on device"
    assert on_two[0]["full"].startswith(f"{OneloopError.__name__}: rank 1: OSError")
    verify(folder / "twice")
    assert sorted(entry.name for entry in (folder / "twice").iterdir()) == ["manifest.json", "whole-0", "whole-1"]
    assert not list(folder.glob(".tmp-*"))
