"""A language model differentiated twice: its Fisher against scores that are added up, on the library's own learner."""

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, LlamaForTokenClassification, Qwen3Config

from oneloop.model.learner import Critic, Learner, Optimization
from oneloop.model.save import shared_critic
from oneloop.objective.natural import fisher_vector_product, flat
from oneloop.ports import AskedForValues, TwiceDifferentiable
from toy_models import decided, ragged_batch

SHAPE = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=False),
    "qwen3, tied": Qwen3Config(
        **SHAPE, head_dim=4, num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=True
    ),
    "gpt2": GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=2, n_positions=32),
}
PLAN = Optimization(learning_rate=1e-3, critic_learning_rate=1e-2, total_updates=10)


def learner(name: str, **options) -> Learner:
    return Learner(decided(CONFIGS[name]), optimization=PLAN, natural=True, **options)


def rows():
    """Of several lengths, with answers of the environment in them."""
    return ragged_batch(0, rows=3, dtype=torch.float32)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_plain_way_says_what_the_passes_say(name: str) -> None:
    models, batch = learner(name, temperature=0.7), rows()
    assert isinstance(models, TwiceDifferentiable)
    table = torch.log_softmax(models.distribution(batch).logits, -1)
    found = table.gather(-1, batch.tokens[batch.mask][:, None])[:, 0]
    torch.testing.assert_close(found, models.policy(batch).logprobs[batch.mask], rtol=1e-4, atol=1e-4)
    shifted = table.roll(1, 0).gather(-1, batch.tokens[batch.mask][:, None])[:, 0]
    assert not torch.allclose(found, shifted, atol=0.1)


@pytest.mark.parametrize("name", CONFIGS)
def test_products_are_those_of_the_scores(name: str) -> None:
    """F v = 1/A Σ over actions Σ_v π(v) ∇log π(v) (∇log π(v) · v), each score by a backward pass of its own."""
    models, batch = learner(name), rows()
    parameters = models.policy_parameters()
    here = models.distribution(batch)
    product = fisher_vector_product(here.detached().kl(here).mean(), parameters)
    v = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(1))
    table = torch.log_softmax(models.distribution(batch).logits, -1)
    wanted = torch.zeros_like(v)
    for logprob in table.flatten():
        score = flat(torch.autograd.grad(logprob, parameters, retain_graph=True, materialize_grads=True))
        wanted += logprob.detach().exp() * (score @ v) * score / len(table)
    found = product(v)
    assert float((found - wanted).norm()) < 1e-3 * float(wanted.norm())
    assert float(v @ found) > 0


def test_the_fused_passes_have_no_second_derivative_and_say_so() -> None:
    """Why there is a plain way: gradients that are written in place cannot be differentiated once more."""
    models, batch = learner("llama"), rows()
    logprobs = models.policy(batch).logprobs
    with pytest.raises(RuntimeError, match=r"modified inplace|differentiate twice|does not require grad"):
        slope = flat(torch.autograd.grad(logprobs.sum(), models.policy_parameters(), create_graph=True))
        torch.autograd.grad(slope.square().sum(), models.policy_parameters())


def test_a_head_on_the_trunk_of_a_trust_region_has_it_for_a_view() -> None:
    """Its error ends at the trunk; elsewhere it goes through."""
    for natural in (True, False):
        model = decided(CONFIGS["llama"])
        critic = shared_critic(model)
        torch.nn.init.ones_(critic.head.weight)
        models = Learner(model, optimization=PLAN, critic=critic, natural=natural)
        models.policy(rows()).values.square().sum().backward()
        assert critic.head.weight.grad.any()
        assert all(p.grad is None for p in models.policy_parameters()) == natural


@pytest.mark.parametrize("kind", ["none", "shared", "separate"])
def test_values_are_those_of_the_pass_with_both(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic with a backbone of its own is asked alone, to its last gradient."""
    model, own = decided(CONFIGS["llama"]), LlamaForTokenClassification(LlamaConfig(**SHAPE, num_labels=1)).eval()
    critic = {"none": None, "shared": shared_critic(model), "separate": Critic(own.score, own)}[kind]
    if critic is not None:
        torch.nn.init.ones_(critic.head.weight)
    models, batch = Learner(model, optimization=PLAN, critic=critic, natural=True), rows()
    assert isinstance(models, AskedForValues)
    wanted = models.policy(batch).values
    if kind == "none":
        assert models.critic_values(batch) is wanted is None
        return
    if kind == "separate":
        monkeypatch.setattr(models, "_read", None)
    found = models.critic_values(batch)
    assert torch.equal(found, wanted) and found.any()
    inside = [parameter for name, parameter in models.named_parameters().items() if name.startswith("critic.")]
    both = [torch.autograd.grad(values.square().sum(), inside, allow_unused=True) for values in (found, wanted)]
    for ours, theirs in zip(*both, strict=True):
        assert (ours is None) == (theirs is None) and (ours is None or torch.equal(ours, theirs))


def test_the_optimizer_has_moments_of_the_critic_alone() -> None:
    model = decided(CONFIGS["llama"])
    models = Learner(model, optimization=PLAN, critic=Critic(torch.nn.Linear(8, 1)), natural=True)
    assert set(models.optimized_parameters()) == {"critic.weight", "critic.bias"} < set(models.named_parameters())
    usual = Learner(model, optimization=PLAN, critic=Critic(torch.nn.Linear(8, 1)))
    assert usual.optimized_parameters().keys() == usual.named_parameters().keys()
