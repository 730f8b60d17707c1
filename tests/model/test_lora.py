"""Adapters are what peft says they are, at the speed of the fast paths, and the matrices beside them never move."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from oneloop.errors import ConfigError
from oneloop.experience.pack import Row, collate
from oneloop.forward import fused
from oneloop.forward.fused import settings_of
from oneloop.forward.projection import projection_of
from oneloop.model import lora
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_critic, load_policy, load_reward_model, load_tokenizer
from oneloop.model.lora import (
    Lora,
    adapters_off,
    add_adapters,
    base_of,
    keep_frozen_in,
    merge_adapters,
    merged_state,
)
from oneloop.model.save import save_merged, save_policy
from oneloop.model.tiny import character_tokenizer
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling
from toy_models import decided

SIZES = {
    "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "mistral": MistralConfig(**SIZES, sliding_window=6, head_dim=8),
}
GPT2 = GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1)
TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
OPTIMIZATION = Optimization(learning_rate=1e-2, critic_learning_rate=1e-2, total_updates=10)


def moved(model, size=0.1):
    """Adapters, and what else is trained, away from where they start: there they change nothing."""
    rng = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += size * torch.randn(parameter.shape, generator=rng)
    return model


@pytest.fixture(params=[*CONFIGS, "gpt2"])
def folder(request, tmp_path):
    """A saved model."""
    decided(CONFIGS.get(request.param, GPT2)).save_pretrained(tmp_path / request.param)
    character_tokenizer().save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


@pytest.fixture
def llama(tmp_path):
    decided(CONFIGS["llama"]).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def adapted(folder, rank=4, load=load_policy, **settings):
    model = load(folder).eval()
    add_adapters(model, Lora(rank=rank, **settings), str(folder), seed=3)
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS, use_cache=False).logits


def frozen(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}


def batch_of(count=6):
    torch.manual_seed(1)
    rows = [torch.randint(120, (3 + 2 * n,)).tolist() for n in range(count)]
    return collate([Row(prompt=row[:2], actions=row[2:], group=n, reward=0.0) for n, row in enumerate(rows)])


def test_they_change_nothing_before_they_are_trained_and_start_by_the_seed(folder) -> None:
    model, plain = adapted(folder), load_policy(folder).eval()
    assert torch.equal(logits(model), logits(plain))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    again, other = adapted(folder), load_policy(folder)
    add_adapters(other, Lora(rank=4), str(folder), seed=4)
    same = [torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_saved_adapters_are_pefts_own_and_the_merged_model_is_plain(folder, tmp_path) -> None:
    model = moved(adapted(folder))
    before = frozen(model)
    wanted, untrained = logits(model), logits(load_policy(folder).eval())
    assert (wanted - untrained).abs().max() > 0.1
    save_policy(tmp_path / "adapter", model, character_tokenizer())
    save_merged(tmp_path / "merged", model, character_tokenizer())
    assert not list((tmp_path / "merged").glob("adapter*")) and not (tmp_path / "adapter" / "config.json").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that will go
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter")
    by_transformers = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    for other in (theirs, by_transformers, AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
                  load_policy(tmp_path / "adapter")):  # fmt: skip
        torch.testing.assert_close(logits(other.eval()), wanted, rtol=1e-4, atol=1e-4)
    # neither of the two touched the matrices that the adapters stand beside
    assert all(torch.equal(value, before[name]) for name, value in frozen(model).items())


def test_what_is_loaded_from_adapters_is_a_plain_model_that_trains_whole(llama, tmp_path) -> None:
    save_policy(tmp_path / "adapter", moved(adapted(llama)), character_tokenizer())
    model = load_policy(tmp_path / "adapter")
    assert {type(module) for module in model.modules()} == {type(module) for module in load_policy(llama).modules()}
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load_policy(tmp_path / "again").eval()), logits(model.eval()))


@pytest.mark.parametrize(
    ("load", "kind"),
    [(load_reward_model, AutoModelForSequenceClassification), (load_critic, AutoModelForTokenClassification)],
)
def test_heads_that_score_are_trained_and_saved_whole(load, kind, llama, tmp_path) -> None:
    model = moved(adapted(llama, load=load))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.startswith("score.") for name in names)
    assert not any(".lora_" in name for name in names if name.startswith("score."))
    save_policy(tmp_path / "adapter", model, character_tokenizer())
    save_merged(tmp_path / "merged", model, character_tokenizer())
    for other in (load(tmp_path / "adapter"), kind.from_pretrained(tmp_path / "merged")):
        torch.testing.assert_close(logits(other.eval()), logits(model), rtol=1e-4, atol=1e-4)
        assert logits(model).abs().max() > 1e-2


@pytest.mark.parametrize("name", CONFIGS)
def test_the_fast_path_says_what_the_modules_say(name, tmp_path, monkeypatch) -> None:
    decided(CONFIGS[name]).save_pretrained(tmp_path)
    model, batch = moved(adapted(tmp_path)), batch_of()
    learner = Learner(model, optimization=OPTIMIZATION)
    assert learner._backbone.settings is not None

    def told(learner):
        model.zero_grad()
        out = learner.policy(batch)
        (out.logprobs * torch.arange(out.logprobs.numel()).view_as(out.logprobs)).sum().backward()
        return out.logprobs.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    slow = Learner(model, optimization=OPTIMIZATION)
    slow._read = replace(slow._read, backbone=replace(slow._backbone, settings=None))
    (ours, ours_grad), (theirs, theirs_grad) = told(learner), told(slow)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours_grad.keys() == theirs_grad.keys() and len(ours_grad) == 2 * 7 * 2
    for name, gradient in theirs_grad.items():
        scale = float(gradient.abs().max())
        assert scale > 0
        torch.testing.assert_close(ours_grad[name], gradient, rtol=1e-4, atol=1e-4 * scale, msg=name)
    # the mutant: one that does not add what stands behind a sum of residuals
    monkeypatch.setattr(fused, "adapted", lambda outs, x, adapters: outs)
    model.requires_grad_(True)
    assert not torch.allclose(told(learner)[0], theirs, atol=1e-3)


@pytest.mark.parametrize("most_bytes", [fused.MOST_BYTES, 0])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_sampler_draws_with_adapters_and_says_the_trainers_logprobs(name, most_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(fused, "MOST_BYTES", most_bytes)  # 0: nothing is copied, and nothing merged
    decided(CONFIGS[name]).save_pretrained(tmp_path)
    model = moved(adapted(tmp_path))
    engine, learner = Engine(model, (1,)), Learner(model, optimization=OPTIMIZATION)
    assert not engine.note
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]

    def drawn():
        completions = engine.generate(prompts, Sampling(max_new_tokens=9), [1, 2, 3])
        rows = zip(prompts, completions, strict=True)
        batch = collate(
            [Row(prompt=p, actions=c.tokens, group=n, reward=0.0, logprobs=c.logprobs) for n, (p, c) in enumerate(rows)]
        )
        return completions, batch

    completions, batch = drawn()
    with torch.no_grad():
        torch.testing.assert_close(
            learner.policy(batch).logprobs[batch.mask], batch.rollout_logprobs[batch.mask], rtol=1e-4, atol=1e-4
        )
        off = learner.reference(batch)
    assert not torch.allclose(off[batch.mask], batch.rollout_logprobs[batch.mask], atol=1e-2)
    moved(model)
    assert drawn()[0] != completions  # the next call samples from whatever the adapters are then


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_the_reference_is_the_policy_with_its_adapters_off(name, tmp_path) -> None:
    decided(CONFIGS.get(name, GPT2)).save_pretrained(tmp_path)
    model, batch = moved(adapted(tmp_path)), batch_of()
    learner = Learner(model, optimization=OPTIMIZATION)
    start = Learner(load_policy(tmp_path), optimization=OPTIMIZATION)
    with torch.no_grad():
        wanted, policy = start.policy(batch).logprobs, learner.policy(batch).logprobs
    torch.testing.assert_close(learner.reference(batch), wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(policy, wanted, atol=1e-2)
    # afterwards they are on again, and trained
    with torch.no_grad():
        assert torch.equal(learner.policy(batch).logprobs, policy)
    learner.policy(batch).logprobs.sum().backward()
    assert learner.step()["grad_norm"] > 0


def test_adapters_come_back_on_after_a_failure(llama) -> None:
    model = moved(adapted(llama))
    wanted = logits(model)
    with pytest.raises(RuntimeError, match="inside"), adapters_off(model):
        assert not torch.allclose(logits(model), wanted, atol=1e-2)
        raise RuntimeError("inside")
    assert torch.equal(logits(model), wanted)
    assert any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_thousand_rounds_leave_the_frozen_matrices_bit_for_bit(dtype, tmp_path) -> None:
    """A round makes what sampling, the reference and an export read; peers merge and unmerge in it."""
    decided(LlamaConfig(**SIZES | {"num_hidden_layers": 1})).save_pretrained(tmp_path)
    model = adapted(tmp_path, rank=2, targets=("up_proj", "down_proj"))
    settings = settings_of(model)
    keep_frozen_in(model, dtype)
    learner, engine = Learner(model, optimization=OPTIMIZATION, dtype=dtype), Engine(model, (1,), dtype=dtype)
    before, batch = frozen(model), batch_of(2)
    for number in range(1000):
        if number % 50 == 0:
            engine.generate([[5, 6]], Sampling(max_new_tokens=2), [number])
            learner.policy(batch).logprobs.sum().backward()
            learner.step()
        with adapters_off(model):
            fused.Fused(model, settings)
        if number % 10 == 0:
            merged_state(model)
        if dtype == torch.float32:
            fused.Fused(model, settings, decode=True)
    after = frozen(model)
    assert learner.updates == 20 and before.keys() == after.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    # the mutant: merging into the matrix and out of it again, as often
    layer = model.model.layers[0].mlp.up_proj
    for _ in range(1000):
        layer.merge()
        layer.unmerge()
    assert not torch.equal(layer.base_layer.weight, after["model.layers.0.mlp.up_proj.base_layer.weight"])


@pytest.mark.parametrize("name", CONFIGS)
def test_frozen_matrices_in_bfloat16_give_the_numbers_of_autocast(name, tmp_path) -> None:
    decided(CONFIGS[name]).save_pretrained(tmp_path)
    wide, narrow, batch = moved(adapted(tmp_path)), moved(adapted(tmp_path)), batch_of()
    keep_frozen_in(narrow, torch.bfloat16)
    learners = [Learner(model, optimization=OPTIMIZATION, dtype=torch.bfloat16) for model in (wide, narrow)]
    assert not any(learner.note for learner in learners) and not Engine(narrow, (1,), dtype=torch.bfloat16).note
    outs = [learner.policy(batch).logprobs for learner in learners]
    assert torch.equal(*outs)
    for out in outs:
        out.sum().backward()
    pairs = zip(wide.named_parameters(), narrow.named_parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for (_, a), (_, b) in pairs if a.requires_grad)
    sizes = [sum(p.nbytes for p in model.base_model.layers.parameters()) for model in (wide, narrow)]
    assert sizes[1] < 0.7 * sizes[0]
    torch.testing.assert_close(
        merged_state(narrow), {name: value for name, value in merged_state(wide).items()}, rtol=1e-2, atol=1e-2
    )
    assert {value.dtype for value in merged_state(narrow).values()} == {torch.float32}


def dora(model):
    model.add_adapter(LoraConfig(r=2, target_modules="all-linear", use_dora=True))


def two(model):
    for name in ("one", "two"):
        model.add_adapter(LoraConfig(r=2, target_modules="all-linear"), name)
    model.set_adapter(["one", "two"])


def with_bias(model):
    model.add_adapter(LoraConfig(r=2, target_modules="all-linear", lora_bias=True))


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize("other", [dora, two, with_bias])
def test_adapters_of_another_kind_run_as_modules(other) -> None:
    model = decided(CONFIGS["llama with biases"]).eval()
    assert settings_of(model) is not None
    other(model)
    assert settings_of(model) is None
    assert projection_of(nn.Embedding(3, 4)) is None


def test_only_the_named_layers_get_adapters(llama) -> None:
    model = adapted(llama, targets=("q_proj", "v_proj"))
    owners = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert owners == {"q_proj", "v_proj"}
    assert settings_of(moved(model)) is not None


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_proj", "w_proj"), "--lora-targets w_proj: LlamaForCausalLM has no such linear layer; it has down_proj, "),
        (("embed_tokens",), "no such linear layer"),
        (("lm_head",), "its matrix is the input embedding too"),
    ],
)
def test_targets_that_cannot_be_are_named(targets, message, llama) -> None:
    with pytest.raises(ConfigError, match=message):
        adapted(llama, targets=targets)


def test_adapters_of_another_model_are_refused(llama, tmp_path) -> None:
    save_policy(tmp_path / "adapter", adapted(llama), character_tokenizer())
    decided(LlamaConfig(**SIZES | {"hidden_size": 16})).save_pretrained(tmp_path / "narrow")
    with pytest.raises(ConfigError, match="shapes that do not fit"):
        merge_adapters(load_policy(tmp_path / "narrow"), tmp_path / "adapter")
    save_policy(tmp_path / "reward", adapted(llama, load=load_reward_model), character_tokenizer())
    with pytest.raises(ConfigError, match="score"):
        load_policy(tmp_path / "reward")


def test_adapters_on_top_of_adapters_are_refused(llama, tmp_path) -> None:
    save_policy(tmp_path / "adapter", adapted(llama), character_tokenizer())
    with pytest.raises(ConfigError, match="it holds adapters itself"):
        adapted(tmp_path / "adapter")


def test_adapters_without_their_model_say_which_is_missing(llama, tmp_path) -> None:
    save_policy(tmp_path / "adapter", adapted(llama), character_tokenizer())
    assert base_of(tmp_path / "adapter") == str(llama)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    for base in ("/nowhere/model", None):
        settings["base_model_name_or_path"] = base
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
        with pytest.raises(ConfigError, match=f"base_model_name_or_path is {base!r}"):
            load_policy(tmp_path / "adapter")


def test_the_tokenizer_of_adapters_is_their_own_or_the_models(folder, tmp_path) -> None:
    model = adapted(folder)
    save_policy(tmp_path / "adapter", model, character_tokenizer())
    own = load_tokenizer(tmp_path / "adapter")
    for path in (tmp_path / "adapter").glob("token*"):
        path.unlink()
    assert load_tokenizer(tmp_path / "adapter").get_vocab() == own.get_vocab() == character_tokenizer().get_vocab()


def test_a_hub_that_refuses_a_name_leaves_the_message_to_the_loader(monkeypatch) -> None:
    def refuse(source):
        raise OSError("Repo id must use alphanumeric characters")

    monkeypatch.setattr(lora, "find_adapter_config_file", refuse)
    assert base_of("./no/folder here") == "./no/folder here"
    with pytest.raises(ConfigError, match="no/folder here: no such folder"):
        load_tokenizer("./no/folder here")


def test_without_peft_the_message_says_what_to_install(llama, tmp_path, monkeypatch) -> None:
    save_policy(tmp_path / "adapter", adapted(llama), character_tokenizer())
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"which holds adapters, needs peft.*pip install 'oneloop\[lora\]'"):
        load_policy(tmp_path / "adapter")
    assert load_policy(llama) is not None
