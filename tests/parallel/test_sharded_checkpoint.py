"""What sharded ranks save together: Hugging Face's layout, read by any number of ranks, whole or not there at all."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from oneloop.errors import OneloopError
from oneloop.record.atomic import verify
from sharded_cases import Case, learner
from sharded_jobs import SAVED_CASES, place, resumed

every_case = pytest.mark.parametrize("case", SAVED_CASES, ids=str)


def check_bits(ours, theirs) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@every_case
def test_two_ranks_resume_as_if_they_had_never_stopped(on_two, case: Case) -> None:
    for mine in on_two:
        check_bits(mine["saved"][str(case)]["resumed"]["state"], mine["saved"][str(case)]["state"])
        check_bits(mine["saved"][str(case)]["resumed"]["learned"], mine["saved"][str(case)]["learned"])


@every_case
def test_one_process_goes_on_from_what_two_saved(on_two, folder, case: Case) -> None:
    verify(place(folder, case))
    expected, found = on_two[0]["saved"][str(case)], resumed(case, folder)
    check_bits(found["state"], expected["state"])
    check_near(found["learned"], expected["learned"])


def test_four_ranks_go_on_from_what_two_saved(on_two, on_four) -> None:
    for mine in on_four:
        for name, found in mine["resumed"].items():
            check_bits(found["state"], on_two[0]["saved"][name]["state"])
            check_near(found["learned"], on_two[0]["saved"][name]["learned"])


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
    saved = place(folder, SAVED_CASES[1]) / "critic"
    model = AutoModelForTokenClassification.from_pretrained(saved)
    for name, value in model.named_parameters():
        assert torch.equal(value, on_two[0]["saved"][str(SAVED_CASES[1])]["state"][f"critic.{name}"]), name


def test_a_full_disk_on_one_rank_fails_on_all_and_leaves_the_old_folder(on_two, folder) -> None:
    assert on_two[1]["saved"]["full"] == "OSError: [Errno 28] No space left on device"
    assert on_two[0]["saved"]["full"].startswith(f"{OneloopError.__name__}: rank 1: OSError")
    verify(folder / "twice")
    assert sorted(entry.name for entry in (folder / "twice").iterdir()) == ["manifest.json", "whole-0", "whole-1"]
    assert not list(folder.glob(".tmp-*"))
