"""Gradient checkpointing gives the same gradient to the bit, from layers that run twice, and leaves nothing behind."""

from contextlib import nullcontext

import pytest
import torch
from transformers import (
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen3Config,
)

from oneloop.config import default_run
from oneloop.experience.pack import Row, collate
from oneloop.forward import attention
from oneloop.forward.recompute import layers_of, recomputed
from oneloop.model.learner import Learner, Optimization
from oneloop.plan.bill import Lengths, bill
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling
from toy_models import decided

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
CONFIGS = {
    "llama, fused": LlamaConfig(**ROPE),
    "qwen3, fused": Qwen3Config(**ROPE, head_dim=8),
    "gemma3, modules": Gemma3TextConfig(
        **ROPE, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "mixtral, modules": MixtralConfig(**ROPE, num_local_experts=3),
    "opt, dropout": OPTConfig(
        **SMALL, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32, dropout=0.5, attention_dropout=0.5
    ),
    "gpt2, dropout": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.5),
    "gemma2, whole logits": Gemma2Config(**ROPE, head_dim=8, final_logit_softcapping=3.0, sliding_window=6),
    "bloom, padded": BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4),
}
PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15, 16, 17, 18]]


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return decided(CONFIGS[request.param])


def learner_of(model: PreTrainedModel, recompute: bool) -> Learner:
    plan = Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=10)
    return Learner(model, optimization=plan, recompute=recompute)


def batch():
    return collate([Row(prompt=p, actions=[4, 5, 6, 1], group=i, reward=1.0) for i, p in enumerate(PROMPTS)])


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    learner.optimizer.zero_grad()
    learner.policy(batch()).logprobs.sum().backward()
    return {name: x.grad.clone() for name, x in learner.named_parameters().items() if x.grad is not None}


def test_the_gradient_is_the_same_to_the_bit(model: PreTrainedModel) -> None:
    kept, again = (gradients(learner_of(model, recompute)) for recompute in (False, True))
    assert kept.keys() == again.keys() and len(kept) > 4
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert any(gradient.abs().max() > 0 for gradient in kept.values())


def test_autograd_keeps_less(model: PreTrainedModel) -> None:
    def kept(recompute: bool) -> int:
        bytes_of: dict[int, int] = {}

        def note(x: torch.Tensor) -> torch.Tensor:
            bytes_of[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        learner = learner_of(model, recompute)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            learner.policy(batch())
        return sum(bytes_of.values())

    # weights count in both; two layers are the least that can be
    assert kept(True) < 0.9 * kept(False)


def test_modules_and_settings_are_as_before(model: PreTrainedModel) -> None:
    implementation = model.base_model.config._attn_implementation
    gradients(learner_of(model, True))
    assert not any("forward" in layer.__dict__ for layer in layers_of(model))
    assert model.base_model.config._attn_implementation == implementation
    assert not any(module.training for module in model.modules())


def test_a_forward_that_somebody_put_on_a_layer_stays() -> None:
    """As accelerate's hooks do."""
    model = decided(CONFIGS["gemma3, modules"])
    layer = layers_of(model)[0]
    own, calls = layer.forward, []
    layer.forward = lambda *inputs, **named: calls.append(1) or own(*inputs, **named)
    put = layer.forward
    with recomputed(model, nullcontext):
        assert layer.forward is not put
    assert layer.__dict__["forward"] is put


def test_sampling_keeps_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many layers run while sampling as without checkpointing, and training afterwards is the same."""
    model = decided(CONFIGS["gemma3, modules"])
    calls: list[int] = []
    attend = attention._attention
    monkeypatch.setitem(
        attention.AttentionInterface._global_mapping,
        attention.NAME,
        lambda *inputs, **named: calls.append(inputs[1].shape[2]) or attend(*inputs, **named),
    )
    sampling, sampled, widths = Sampling(max_new_tokens=6), [], []
    for recompute in (False, True):
        learner = learner_of(model, recompute)
        before = gradients(learner)
        calls.clear()
        sampled.append(Engine(learner.model, (59,)).generate(PROMPTS, sampling, range(3)))
        widths.append(list(calls))
        after = gradients(learner)
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert sampled[0] == sampled[1]
    assert widths[0] == widths[1] and widths[0]


def test_the_plan_bills_what_stays() -> None:
    from dataclasses import replace

    run = replace(default_run("sft"), model="scratch:tiny", max_tokens=2048, prompts_per_step=64)
    kept, again = (
        bill(replace(run, gradient_checkpointing=on), Lengths(prompt=10, answer=22)).table["policy"]["activations"]
        for on in (False, True)
    )
    # 2048 tokens × 96 numbers × 4 bytes of each of 3 layers' inputs are 2.4 MB; the head keeps as much as before
    assert again < 0.2 * kept
