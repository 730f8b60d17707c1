"""Any Hugging Face causal model: sampler = trainer = transformers, right padding changes nothing, folders reload."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_critic, load_policy, load_reward_model
from oneloop.model.save import separate_critic, shared_critic
from oneloop.rollout.engine import Engine
from oneloop.types import Sampling
from toy_models import decided

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
CONFIGS = {
    "llama": LlamaConfig(**ROPE),
    "llama-tied": LlamaConfig(**ROPE, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**ROPE),
    "qwen3": Qwen3Config(**ROPE, head_dim=8),
    "mistral": MistralConfig(**ROPE, sliding_window=6, head_dim=8),
    "gemma": GemmaConfig(**ROPE, head_dim=8),
    "gemma3": Gemma3TextConfig(
        **ROPE, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "mixtral": MixtralConfig(**ROPE, num_local_experts=3),
    "phi3": Phi3Config(**ROPE, pad_token_id=0),
    "gemma2": Gemma2Config(**ROPE, head_dim=8, final_logit_softcapping=3.0, sliding_window=6),
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1),
    "neox": GPTNeoXConfig(**SMALL, intermediate_size=48, max_position_embeddings=64),
    "phi": PhiConfig(**SMALL, intermediate_size=48, max_position_embeddings=64),
    "opt": OPTConfig(**SMALL, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32),
    "bloom": BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4),
}
FAST = set(CONFIGS) - {"gemma2", "bloom"}
"""Gemma 2 caps its scores and logits; Bloom's attention takes no function but its own."""
PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14, 15, 16, 17, 18]]


def make(name: str):
    return decided(CONFIGS[name]).eval()


def optimization() -> Optimization:
    return Optimization(learning_rate=1e-3, critic_learning_rate=1e-3, total_updates=10)


def batch_of(completions, prompts=PROMPTS):
    return collate(
        [
            Row(prompt=p, actions=c.tokens, group=i, reward=0.0, logprobs=c.logprobs)
            for i, (p, c) in enumerate(zip(prompts, completions, strict=True))
        ]
    )


@pytest.fixture(params=CONFIGS)
def named(request):
    return request.param, make(request.param)


def test_sampler_trainer_and_transformers_agree(named) -> None:
    name, model = named
    completions = Engine(model, [1]).generate(PROMPTS, Sampling(max_new_tokens=10, temperature=0.8), [1, 2, 3])
    batch = batch_of(completions)
    learner = Learner(model, optimization=optimization(), temperature=0.8)
    assert (learner.note == "") == (name in FAST)
    with torch.no_grad():
        out = learner.policy(batch)
    assert (out.logprobs - batch.rollout_logprobs)[batch.mask].abs().max() < 1e-4
    for row, (prompt, completion) in enumerate(zip(PROMPTS, completions, strict=True)):
        tokens = torch.tensor([[*prompt, *completion.tokens]])
        with torch.no_grad():
            table = (model(tokens).logits[0, :-1] / 0.8).log_softmax(-1)
        wanted = table.gather(-1, tokens[0, 1:, None])[len(prompt) - 1 :, 0]
        assert torch.allclose(out.logprobs[row][batch.mask[row]], wanted, atol=1e-5)


def test_right_padding_changes_nothing(named) -> None:
    _, model = named
    batch = batch_of(Engine(model, [1]).generate(PROMPTS, Sampling(max_new_tokens=6), [1, 2, 3]))
    learner = Learner(model, optimization=optimization(), critic=shared_critic(model))
    torch.nn.init.normal_(learner.critic.head.weight)
    wide = collate([Row(prompt=[2] * 30, actions=[3], group=9, reward=0.0, logprobs=[0.0])])
    rows = [
        Row(prompt=p, actions=batch.tokens[i, len(p) : batch.lengths[i]].tolist(), group=i, reward=0.0, logprobs=None)
        for i, p in enumerate(PROMPTS)
    ]
    padded = collate([*rows, Row(prompt=wide.tokens[0, :30].tolist(), actions=[3], group=9, reward=0.0)])
    padded.tokens[padded.tokens == 0] = 59  # padding may hold anything
    inside = torch.arange(padded.tokens.shape[1]) < padded.lengths[:, None]
    padded.tokens[~inside] = 10_000  # even ids that the model does not have
    with torch.no_grad():
        plain, other = learner.policy(batch), learner._forward(padded, "none")
    width = batch.tokens.shape[1]
    assert torch.allclose(plain.logprobs, other.logprobs[:3, :width], atol=1e-5)
    assert torch.allclose(plain.values[batch.mask], other.values[:3, :width][batch.mask], atol=1e-5)
    assert torch.allclose(plain.final_values, other.final_values[:3], atol=1e-5)


def test_values_describe_the_state_before_each_token() -> None:
    """V(s_t) reads tokens 0 … t − 1 only; the final value has read everything."""
    model = make("llama")
    learner = Learner(model, optimization=optimization(), critic=shared_critic(model))
    torch.nn.init.normal_(learner.critic.head.weight)
    one = collate([Row(prompt=[5, 6], actions=[7, 8, 9], group=0, reward=0.0)])
    two = collate([Row(prompt=[5, 6], actions=[7, 8, 40], group=0, reward=0.0)])
    with torch.no_grad():
        a, b = learner.policy(one), learner.policy(two)
        hidden = model.model(one.tokens).last_hidden_state
    assert torch.equal(a.values, b.values) and not torch.equal(a.final_values, b.final_values)
    assert torch.allclose(
        a.values[0, 1:], learner.critic.head(hidden)[0, :-1, 0], atol=1e-5
    )  # float32, sums of terms near 10


def test_reward_scores_are_transformers_own(tmp_path) -> None:
    """The score after the last token, found by length: the same as transformers finds by its pad token, and
    right even where the last token *is* the pad token, which transformers' search would miss.
    """
    make("llama").save_pretrained(tmp_path / "policy")
    model = load_reward_model(tmp_path / "policy")
    assert (model.score.weight == 0).all()
    torch.nn.init.normal_(model.score.weight)
    model.config.pad_token_id = 0
    model.save_pretrained(tmp_path / "rm")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    batch = collate([Row(prompt=[5, 6], actions=a, group=i, reward=0.0) for i, a in enumerate(([7, 1], [8, 9, 10, 1]))])
    learner = Learner(load_reward_model(tmp_path / "rm"), optimization=optimization())
    with torch.no_grad():
        ours = learner.policy(batch)
        theirs = loaded(batch.tokens, attention_mask=(batch.tokens != 0).long()).logits[:, 0]
        ends_in_pad = collate([Row(prompt=[5, 6], actions=[7, 0], group=0, reward=0.0)])
        state = loaded.model(ends_in_pad.tokens).last_hidden_state[0, -1]
        assert torch.allclose(learner.policy(ends_in_pad).scores, loaded.score(state), atol=1e-6)
    assert torch.allclose(ours.scores, theirs, atol=1e-5)
    assert ours.logprobs.isnan().all(), "a reward model has no log-probs, and must not seem to"


def test_separate_critic_starts_at_zero_and_reloads(tmp_path) -> None:
    make("qwen2").save_pretrained(tmp_path / "policy")
    critic = separate_critic(load_critic(tmp_path / "policy"))
    model = load_policy(tmp_path / "policy")
    learner = Learner(model, optimization=optimization(), critic=critic)
    batch = collate([Row(prompt=[5, 6], actions=[7, 8], group=0, reward=0.0)])
    with torch.no_grad():
        assert (learner.policy(batch).values == 0).all()
        torch.nn.init.normal_(critic.head.weight)
        before = learner.policy(batch).values
    critic.backbone.save_pretrained(tmp_path / "critic")
    assert torch.equal(load_critic(tmp_path / "critic").score.weight, critic.head.weight)
    again = Learner(model, optimization=optimization(), critic=separate_critic(load_critic(tmp_path / "critic")))
    with torch.no_grad():
        assert torch.equal(again.policy(batch).values, before)
