"""What nothing trains is held in the precision of the products, and says what it would have said."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from oneloop.experience.pack import Row, collate
from oneloop.forward.reader import Backbone
from oneloop.model import frozen
from oneloop.model.frozen import hold_in
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy
from oneloop.model.reward import LearnedReward
from toy_models import decided

SIZES = {
    "vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 120, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "pad_token_id": 0}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "llama, tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "mistral": MistralConfig(**SIZES, sliding_window=6, head_dim=8),
    # its embedding multiplies, and its logits are capped or not by another module
    "gemma3": Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt2": GPT2Config(**GPT2, bos_token_id=0, eos_token_id=1),
}
BF16 = torch.bfloat16
PLAN = Optimization(learning_rate=1e-2, critic_learning_rate=1e-2, total_updates=10)


def batch():
    rng = torch.Generator().manual_seed(3)
    rows = [torch.randint(2, 100, (6 + 3 * n,), generator=rng).tolist() for n in range(4)]
    return collate([Row(prompt=row[:4], actions=row[4:], group=n // 2, reward=1.0) for n, row in enumerate(rows)])


def saved_in_half(model):
    """Numbers as a checkpoint in bfloat16 has them, in float32."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(BF16))
    return model


def gap(policy, reference) -> float:
    learner = Learner(policy, reference=reference, optimization=PLAN, dtype=BF16)
    with torch.no_grad():
        return float((learner.policy(batch()).logprobs - learner.reference(batch())).abs().max())


@pytest.mark.parametrize("saved", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_narrow_reference_says_what_the_policy_said_to_the_bit(name, saved) -> None:
    policy = decided(CONFIGS[name])
    policy = saved_in_half(policy) if saved == "bfloat16" else policy
    reference = hold_in(deepcopy(policy), BF16)
    assert gap(policy, reference) == 0
    sizes = [sum(p.nbytes for p in model.parameters()) for model in (policy, reference)]
    assert sizes[1] < 0.85 * sizes[0]
    assert all(p.dtype == torch.float32 for p in reference.parameters() if p.dim() == 1), "norms and biases"
    # the mutant: everything in half precision
    assert gap(policy, deepcopy(policy).to(BF16)) > 1e-4


def test_embeddings_are_narrowed_where_that_loses_nothing() -> None:
    """hidden 32, 2 layers: all matrices, and of what was saved in half precision the embedding too."""
    policy = decided(CONFIGS["llama"])
    table, head = 4 * 120 * 32, 4 * 120 * 32
    norms = 4 * 5 * 32
    layers = sum(p.nbytes for p in policy.parameters()) - table - head - norms
    size = sum(p.nbytes for p in hold_in(deepcopy(policy), BF16).parameters())
    assert size == (layers + head) // 2 + table + norms
    half = saved_in_half(policy)
    assert sum(p.nbytes for p in hold_in(deepcopy(half), BF16).parameters()) == (layers + head + table) // 2 + norms


def test_an_embedding_that_would_lose_something_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = decided(CONFIGS["llama"])
    monkeypatch.setattr(frozen, "_representable", lambda weight, dtype: True)
    assert gap(policy, hold_in(deepcopy(policy), BF16)) > 1e-4


def test_tied_matrices_stay_one() -> None:
    policy = decided(CONFIGS["llama, tied"])
    for model, dtype in ((policy, torch.float32), (saved_in_half(deepcopy(policy)), BF16)):
        narrow = hold_in(deepcopy(model), BF16)
        assert narrow.lm_head.weight is narrow.get_input_embeddings().weight
        assert narrow.lm_head.weight.dtype == dtype
    assert hold_in(policy, torch.float32) is policy and policy.lm_head.weight.dtype == torch.float32


def test_a_narrow_reward_model_scores_as_a_wide_one_in_the_same_passes() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES | {"num_labels": 1})
    model = AutoModelForSequenceClassification.from_config(config)
    narrow = hold_in(deepcopy(model), BF16)
    assert narrow.score.weight.dtype == torch.float32
    prompts, answers = [[5, 6, 7], [5, 6, 7], [9]], [[8, 9], [10], [11, 12, 13, 14]]
    scores = [LearnedReward(one, dtype=BF16)([""] * 3, prompts, answers) for one in (model, narrow)]
    assert scores[0] == scores[1]
    # read from the states in float32: in bfloat16 a score has three digits
    assert all(float(torch.tensor(score).to(BF16)) != score for score in scores[1])
    exact = LearnedReward(model)([""] * 3, prompts, answers)
    assert scores[1] != exact and scores[1] == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_learner_reads_a_narrow_reference_the_way_it_reads_the_policy(recompute) -> None:
    """No slower way for want of a trial that passes."""
    policy = load_policy("scratch:tiny")
    reference = hold_in(load_policy("scratch:tiny"), BF16)
    learner = Learner(policy, reference=reference, optimization=PLAN, dtype=BF16, recompute=recompute)
    assert learner.note == "" and Backbone.of(reference, BF16) == replace(Backbone.of(policy, BF16), model=reference)
