"""What is loaded gets memory of its own: the same bits wherever a file was mapped, and nothing random or left out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

from oneloop.config import default_run
from oneloop.errors import ConfigError
from oneloop.experience.pairs import Pair, pair_batch
from oneloop.model.aligned import ALIGNMENT, align, aligned
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_critic, load_policy, load_reward_model, load_tokenizer
from oneloop.model.lora import Lora, add_adapters
from oneloop.model.save import save_critic, save_policy, separate_critic
from oneloop.parallel.checkpoint import read_state, write_state
from oneloop.recipes.build import assemble
from oneloop.recipes.inputs import read_inputs
from oneloop.recipes.resolve import kind_of, resolved
from toy_models import Memory

LOADERS = [AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification]
SHIFTS = (4, 16, 32)
"""Bytes; the last two are what safetensors files give, the first what no library ever would."""


def moved(x: torch.Tensor, by: int) -> torch.Tensor:
    """The same numbers, `by` bytes after a multiple of 64."""
    room = torch.empty(x.numel() + by // 4 + 16, dtype=x.dtype)
    skip = (by - room.data_ptr()) % ALIGNMENT // x.itemsize
    out = room[skip : skip + x.numel()].view(x.shape)
    assert out.data_ptr() % ALIGNMENT == by
    return out.copy_(x)


def offsets(tensors) -> set[int]:
    return {x.data_ptr() % ALIGNMENT for x in tensors}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("policy")
    save_policy(out, load_policy("scratch:tiny"), load_tokenizer("scratch:tiny"))
    return out


@pytest.fixture
def mapped(monkeypatch):
    """Has every loader find its tensors at an address that is not a multiple of 64."""

    def shift(by: int) -> None:
        for loader in LOADERS:
            load = loader.from_pretrained

            def elsewhere(*given, load=load, **options):
                model, found = load(*given, **options)
                for parameter in model.parameters():
                    parameter.data = moved(parameter.detach(), by)
                return model, found

            monkeypatch.setattr(loader, "from_pretrained", elsewhere)

    return shift


def trained(model, critic=None, updates=2) -> list[torch.Tensor]:
    """Weights after some updates by pairs of a reward model, or by values of a critic."""
    plan = Optimization(learning_rate=1e-2, critic_learning_rate=1e-2, total_updates=updates)
    learner = Learner(model, optimization=plan, critic=critic)
    rng = torch.Generator().manual_seed(0)
    rows = torch.randint(3, 90, (24, 13), generator=rng).tolist()
    batch = pair_batch([Pair(a[:4], a[4:], b[3:]) for a, b in zip(rows[::2], rows[1::2], strict=True)])
    for _ in range(updates):
        out = learner.policy(batch)
        loss = out.scores if critic is None else out.values
        loss.pow(2).add(loss).sum().backward()
        learner.step()
    return [parameter.detach().clone() for parameter in learner.named_parameters().values()]


@pytest.mark.parametrize("by", SHIFTS)
def test_a_reward_model_and_a_critic_train_to_the_same_bits_wherever_their_file_was_mapped(folder, mapped, by) -> None:
    reward, critic = trained(load_reward_model(folder)), trained(load_policy(folder), _critic(folder))
    mapped(by)
    assert all(map(torch.equal, trained(load_reward_model(folder)), reward))
    assert all(map(torch.equal, trained(load_policy(folder), _critic(folder)), critic))


def _critic(folder: Path):
    model = load_critic(folder)
    nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(1))
    return separate_critic(model)


@pytest.mark.parametrize("by", SHIFTS)
@pytest.mark.parametrize("load", [load_policy, load_reward_model, load_critic])
def test_what_is_loaded_begins_at_the_allocators_alignment(folder, mapped, load, by) -> None:
    """Asked of the address itself, which no kind of CPU can hide."""
    mapped(by)
    model = load(folder)
    assert offsets(model.parameters()) == {0}
    assert offsets(buffer for buffer in model.buffers() if buffer.numel()) == {0}


def test_the_question_can_be_answered_otherwise(folder) -> None:
    """The mutant: a model that nobody copied."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert offsets(model.parameters()) != {0}
    align(model)
    assert offsets(model.parameters()) == {0}


def test_a_copy_keeps_numbers_ties_and_gradients_and_nothing_of_the_file(folder) -> None:
    x = moved(torch.randn(5, 7, requires_grad=True), 16)
    assert torch.equal(aligned(x), x) and aligned(x).data_ptr() != x.data_ptr()
    model = load_policy(folder)
    model.lm_head.weight = model.get_input_embeddings().weight
    align(model)
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
@pytest.mark.parametrize("lora", [0, 4])
def test_every_model_of_a_resumed_run_is_aligned_its_moments_too(folder, tmp_path, algorithm, lora) -> None:
    run = replace(default_run(algorithm), model=str(folder), data="task:addition", lora=lora, data_size=8, eval_size=4,
                  critic="separate")  # fmt: skip
    algorithm = resolved(run)
    parts = assemble(run, algorithm, read_inputs(run, kind_of(algorithm)), Memory())
    for parameter in parts.learner.named_parameters().values():
        parameter.grad = torch.ones_like(parameter)
    parts.learner.step()
    save_policy(tmp_path / "policy", parts.learner.model, parts.text.tokenizer)
    if parts.learner.critic is not None:
        save_critic(tmp_path / "critic", parts.learner.critic)
    write_state(tmp_path / "resume", parts.learner, {})
    again = assemble(run, algorithm, read_inputs(run, kind_of(algorithm)), Memory(), tmp_path).learner
    read_state(tmp_path / "resume", again)
    assert offsets(again.model.parameters()) == {0}
    assert again.critic is None or offsets(again.critic.backbone.parameters()) == {0}
    moments = [x for state in again.optimizer.state.values() for x in state.values()]
    assert len(moments) == 3 * len(again.named_parameters()) and offsets(moments) == {0}
    if again._read_reference is not None:
        assert offsets(again._read_reference.backbone.model.parameters()) == {0}


def test_adapters_that_are_loaded_are_aligned(folder, tmp_path) -> None:
    model = load_policy(folder)
    add_adapters(model, Lora(rank=4), str(folder))
    save_policy(tmp_path, model, load_tokenizer(folder))
    resumed = load_policy(folder)
    add_adapters(resumed, Lora(rank=4), str(folder), saved=tmp_path)
    assert offsets(resumed.parameters()) == {0}
    assert offsets(load_policy(tmp_path).parameters()) == {0}, "merged"


# ---- nothing random, nothing left out


def changed(folder: Path, out: Path, **config) -> Path:
    shutil.copytree(folder, out)
    settings = json.loads((out / "config.json").read_text()) | config
    (out / "config.json").write_text(json.dumps(settings))
    return out


@pytest.mark.parametrize("load", [load_policy, load_reward_model, load_critic])
@pytest.mark.parametrize(("layers", "words"), [(4, "are missing"), (2, "has no place for are there")])
def test_a_configuration_of_more_or_fewer_layers_than_the_file_is_refused(folder, tmp_path, load, layers, words):
    wrong = changed(folder, tmp_path / "wrong", num_hidden_layers=layers)
    with pytest.raises(ConfigError, match=rf"9 tensors that .*{words} \(model\.layers\.[23]\."):
        load(wrong)


def test_a_reward_model_is_no_policy_and_a_policy_becomes_one_with_a_new_head_alone(folder, tmp_path) -> None:
    model = load_reward_model(folder)
    assert not model.score.weight.any()
    nn.init.ones_(model.score.weight)
    save_policy(tmp_path / "rm", model, load_tokenizer(folder))
    with pytest.raises(
        ConfigError, match=r"lm_head\.weight.*score\.weight.*such as a policy instead of a reward model"
    ):
        load_policy(tmp_path / "rm")
    assert load_reward_model(tmp_path / "rm").score.weight.all(), "a head that is there is read"


def test_shapes_that_do_not_fit_and_torn_files_are_refused(folder, tmp_path) -> None:
    with pytest.raises(ConfigError, match="other shapes"):
        load_policy(changed(folder, tmp_path / "wide", hidden_size=192))
    torn = changed(folder, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ConfigError, match="is cut off or damaged"):
        load_policy(torn)


@pytest.mark.parametrize("load", [load_policy, load_reward_model, load_critic, load_tokenizer])
def test_code_of_a_model_is_never_run_nor_asked_about(folder, tmp_path, monkeypatch, load) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    parts = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]}
    own = changed(folder, tmp_path / "own", model_type="own", auto_map=parts)
    tokenizer = json.loads((own / "tokenizer_config.json").read_text()) | {"tokenizer_class": "Own", "auto_map": parts}
    (own / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (own / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass OwnConfig: pass\nclass Own: pass\n")
    with pytest.raises(ConfigError, match="Python code of its own, which is never run"):
        load(own)
    assert not (tmp_path / "ran").exists()
