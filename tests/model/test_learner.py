"""The optimizer step: schedule, clipping, what is decayed, and what happens to a gradient that is not finite."""

import pytest
import torch
from transformers import GPT2Config

from oneloop.errors import ConfigError, DivergedError
from oneloop.experience.pack import Row, collate
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import load_policy, load_reward_model, load_tokenizer
from oneloop.model.save import shared_critic
from oneloop.model.text import Text, end_ids, ignored_sampling
from toy_models import decided


def plan(**changes) -> Optimization:
    return Optimization(**({"learning_rate": 1.0, "critic_learning_rate": 1.0, "total_updates": 10} | changes))


def test_schedules() -> None:
    """Warm-up over 2 of 10 updates: 1/3, 2/3, then 1; linear reaches half way at update 6; cosine too."""
    constant = plan(warmup_updates=2)
    assert [constant.factor(n) for n in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    linear, cosine = plan(warmup_updates=2, schedule="linear"), plan(warmup_updates=2, schedule="cosine")
    assert [linear.factor(n) for n in (2, 6, 10, 99)] == pytest.approx([1, 0.5, 0, 0])
    assert [cosine.factor(n) for n in (2, 6, 10, 99)] == pytest.approx([1, 0.5, 0, 0])
    assert cosine.factor(4) == pytest.approx((1 + 2**-0.5) / 2)


def filled(learner: Learner, value: float) -> None:
    for parameter in learner.named_parameters().values():
        parameter.grad = torch.full_like(parameter, value)


def test_a_bad_gradient_is_skipped_and_three_in_a_row_end_the_run() -> None:
    learner = Learner(load_policy("scratch:tiny"), optimization=plan())
    before = [p.detach().clone() for p in learner.model.parameters()]
    for value in (torch.nan, torch.inf):
        filled(learner, value)
        assert learner.step()["skipped_steps"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    assert all(p.grad is None for p in learner.model.parameters())
    filled(learner, 1.0)
    assert learner.step()["grad_norm"] > 1
    assert learner.skipped_in_a_row == 0 and learner.updates == 1, "one good step, and the count starts again"
    for _ in range(2):
        filled(learner, torch.nan)
        learner.step()
    filled(learner, torch.nan)
    with pytest.raises(DivergedError, match="3 optimizer steps in a row"):
        learner.step()


def test_two_learning_rates_and_decay_of_matrices_only() -> None:
    model = load_policy("scratch:tiny")
    settings = plan(learning_rate=1e-3, critic_learning_rate=1e-2, weight_decay=0.1)
    learner = Learner(model, critic=shared_critic(model), optimization=settings)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in learner.optimizer.param_groups for p in g["params"]}
    named = learner.named_parameters()
    assert len(rates) == len(named), "every parameter once"
    assert rates[id(named["policy.lm_head.weight"])] == (1e-3, 0.1)
    assert rates[id(named["policy.model.norm.weight"])] == (1e-3, 0.0)
    assert rates[id(named["critic.weight"])] == (1e-2, 0.1)
    assert rates[id(named["critic.bias"])] == (1e-2, 0.0)


def test_every_named_end_token_counts_and_sampling_settings_do_not() -> None:
    """The tokenizer's own first, then those of generation_config and config; the rest is ignored by name."""
    model, tokenizer = load_policy("scratch:tiny"), load_tokenizer("scratch:tiny")
    model.generation_config.update(eos_token_id=[7, 1, 9], repetition_penalty=1.1, top_k=20)
    assert end_ids(model, tokenizer) == (1, 7, 9)
    assert ignored_sampling(model) == {"top_k": 20, "repetition_penalty": 1.1}
    text = Text(tokenizer, (1, 7, 9))
    assert text.completion("4")[-1] == 1
    assert text.decode([*text.completion("46")[:-1], 9]) == "46", "any of them is cut from what a grader reads"
    tokenizer.eos_token = model.config.eos_token_id = model.generation_config.eos_token_id = None
    with pytest.raises(ConfigError, match="end-of-sequence"):
        end_ids(model, tokenizer)


def test_pad_may_be_the_end_token() -> None:
    """Nothing is read off token values, so a pad that equals the end token hides nothing."""
    tokenizer = load_tokenizer("scratch:tiny")
    tokenizer.pad_token = tokenizer.eos_token
    text = Text(tokenizer, (tokenizer.eos_token_id,))
    batch = collate([Row(prompt=[5], actions=text.completion(word), group=0, reward=1.0) for word in ("4", "456")])
    batch.tokens[0, 3:] = tokenizer.pad_token_id
    assert batch.mask.sum(1).tolist() == [2, 4], "the end token is an action, the padding is none"
    model = load_policy("scratch:tiny")
    learner = Learner(model, optimization=plan(learning_rate=1e-3))
    (-learner.policy(batch).logprobs.sum()).backward()
    assert model.lm_head.weight.grad[tokenizer.eos_token_id].abs().sum() > 0, "stopping is learned"


def test_dropout_stays_off() -> None:
    """A model that arrives in training mode says the same each time, in a pass with gradient and in one without."""
    options = {"vocab_size": 97, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5)
    batch = collate([Row(prompt=[5, 6], actions=[7, 8, 9], group=0, reward=1.0)])
    models = [decided(GPT2Config(**options, **dropout)).train() for _ in range(2)]
    learner = Learner(models[0], reference=models[1], optimization=plan())
    plain = learner.policy(batch).logprobs
    assert torch.equal(plain, learner.policy(batch).logprobs)
    assert torch.equal(learner.reference(batch), learner.reference(batch))
    with torch.no_grad():
        torch.testing.assert_close(learner.policy(batch).logprobs, plain, rtol=1e-5, atol=1e-5)


def test_scratch_models_depend_on_their_seed_only() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a, b, c = (load_policy("scratch:tiny", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.lm_head.weight, b.lm_head.weight) and not torch.equal(a.lm_head.weight, c.lm_head.weight)
    with pytest.raises(ConfigError, match="starts from a trained policy"):
        load_reward_model("scratch:tiny")
