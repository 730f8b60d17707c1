"""KL estimators, the exact sum, where the divergence enters, and the controller of its coefficient."""

from dataclasses import dataclass
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from oneloop.algorithms import PolicyGradient
from oneloop.batch import Batch, PolicyOutput
from oneloop.errors import ConfigError
from oneloop.objective.advantage import NoBaseline
from oneloop.objective.divergence import KL, AdaptiveKL, exact_kl, kl_estimate
from oneloop.objective.surrogate import ScoreFunction

POLICY = torch.tensor([0.3, -1.0, 0.8, 0.0, -0.4], dtype=torch.float64)  # logits over five tokens
REFERENCE = torch.tensor([-0.5, 1.4, 0.1, 2.0, -2.2], dtype=torch.float64)


def slow_kl(p, q):
    return sum(a * (log(a) - log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def test_estimates_by_hand():
    # x = 0.5:  k1 0.5;  k2 0.125;  k3 e^−0.5 − 1 + 0.5 = 0.1065
    # x = −1:   k1 −1;   k2 0.5;    k3 e − 2 = 0.7183
    x = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
    assert kl_estimate(x, "k1").tolist() == [0.5, -1.0, 0.0]
    assert kl_estimate(x, "k2").tolist() == [0.125, 0.5, 0.0]
    assert kl_estimate(x, "k3").tolist() == pytest.approx([exp(-0.5) - 0.5, exp(1) - 2, 0.0], rel=1e-12)
    assert torch.equal(kl_estimate(x), kl_estimate(x, "k3"))


def test_k3_keeps_its_digits_near_zero():
    # e^−x − 1 + x = x²/2 − x³/6 + …: written as exp() − 1 it would be all rounding at x = 1e-4 in float32
    x = torch.tensor([1e-4])
    assert kl_estimate(x, "k3").item() == pytest.approx(0.5e-8, rel=1e-2, abs=1e-11)


def test_expectations_over_the_vocabulary():
    p, q = POLICY.softmax(0), REFERENCE.softmax(0)
    exact = exact_kl(POLICY, REFERENCE).item()
    assert exact == pytest.approx(slow_kl(p.tolist(), q.tolist()), rel=1e-12)
    x = (p / q).log()
    assert float((p * kl_estimate(x, "k1")).sum()) == pytest.approx(exact, rel=1e-12)
    assert float((p * kl_estimate(x, "k3")).sum()) == pytest.approx(exact, rel=1e-12)
    assert float((p * kl_estimate(x, "k2")).sum()) != pytest.approx(exact, rel=1e-2)  # biased


def test_exact_kl_with_tokens_outside_the_support():
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 1.0, 2.0]])
    reference = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    assert exact_kl(logits, reference).tolist() == pytest.approx([log(3 / 2), 0.0], abs=1e-6)


@given(st.lists(st.floats(-15, 15), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_divergences_are_not_negative(numbers):
    x = torch.tensor(numbers, dtype=torch.float64)
    assert bool((kl_estimate(x, "k2") >= 0).all()) and bool((kl_estimate(x, "k3") >= 0).all())
    assert float(exact_kl(x, x.flip(0))) >= -1e-12
    assert abs(float(exact_kl(x, x + 3.0))) < 1e-12  # a constant added to the logits changes nothing


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("jump", [89.0, -89.0])
def test_huge_log_ratios_stay_finite_and_never_push_outwards(estimator, jump):
    x = torch.tensor([jump], requires_grad=True)
    estimate = kl_estimate(x, estimator)
    estimate.sum().backward()
    assert bool(estimate.isfinite()) and bool(x.grad.isfinite())
    if estimator != "k1":  # descent must not enlarge |x|
        assert float(x.grad) * jump >= 0


@dataclass(frozen=True)
class Expectation:
    """Row v is token v: weighing it by π_θ(v) turns a batch of all tokens into the expectation."""

    probabilities: tuple[float, ...]
    formula = "Σ_v π(v)"

    def __call__(self, mask: Tensor, size: object) -> Tensor:
        return torch.tensor(self.probabilities, dtype=torch.float64)[:, None] * mask


class Vocabulary:
    """A policy without context: one softmax over five tokens."""

    def __init__(self):
        self.logits = POLICY.clone().requires_grad_()

    def policy(self, batch):
        table = self.logits.log_softmax(0)
        entropy = -(table.exp() * table).sum()
        return PolicyOutput(table[batch.tokens], entropy.expand(batch.tokens.shape))

    def reference(self, batch):
        return REFERENCE.log_softmax(0)[batch.tokens]

    def step(self):
        return {}


def expected_gradient(kl):
    """∇ of the loss over every token, through prepare() and loss(); the task's reward is 0.3 for token 2."""
    models = Vocabulary()
    algorithm = PolicyGradient(
        name="exact",
        advantage=NoBaseline(),
        surrogate=ScoreFunction(),
        aggregate=Expectation(tuple(POLICY.softmax(0).tolist())),
        kl=kl,
    )
    rewards = torch.zeros(5, 1, dtype=torch.float64)
    rewards[2] = 0.3
    mask = torch.ones(5, 1, dtype=torch.bool)
    batch = Batch(torch.arange(5)[:, None], mask, torch.arange(5), rewards, torch.zeros(5, dtype=torch.bool))
    batch = algorithm.prepare(batch, models)
    algorithm.loss(models.policy(batch), batch, batch.size).value.backward()
    return models.logits.grad


def analytic(function):
    """∇ of a closed form in the probabilities, by autograd."""
    logits = POLICY.clone().requires_grad_()
    function(logits.softmax(0), REFERENCE.softmax(0)).backward()
    return logits.grad


def forward_kl(p, q):
    return (p * (p / q).log()).sum()


def reverse_kl(p, q):
    return (q * (q / p).log()).sum()


def half_square(p, q):
    return (p * (p / q).log().square() / 2).sum()


BETA = 0.7
# What −β·k at the reward, or +β·k in the loss, does to the loss on policy, with x = log π − log π_ref:
GRADIENTS = {
    # E[x ∇log π] = ∇KL(π ‖ π_ref)
    ("reward", "k1"): forward_kl,
    # E[x²/2 ∇log π] = ∇E[x²/2] − E[x ∇log π]
    ("reward", "k2"): lambda p, q: half_square(p, q) - forward_kl(p, q),
    # E[e^−x ∇log π] = Σ π_ref ∇log π = −∇KL(π_ref ‖ π)
    ("reward", "k3"): lambda p, q: forward_kl(p, q) - reverse_kl(p, q),
    # E[∇x²/2] = E[x ∇log π]
    ("loss", "k2"): forward_kl,
    # E[∇(e^−x + x)] = E[(1 − e^−x) ∇log π] = ∇KL(π_ref ‖ π)
    ("loss", "k3"): reverse_kl,
}


@pytest.mark.parametrize(("at", "estimator"), GRADIENTS)
def test_expected_gradient_of_each_kl_option(at, estimator):
    task = expected_gradient(None)
    torch.testing.assert_close(task, analytic(lambda p, q: -0.3 * p[2]), rtol=1e-9, atol=1e-12)
    gradient = expected_gradient(KL(BETA, at=at, estimator=estimator)) - task
    wanted = BETA * analytic(GRADIENTS[at, estimator])
    torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
    assert float(gradient.abs().max()) > 1e-2  # a positive coefficient changes the update
    assert float(expected_gradient(KL(0.0, at=at, estimator=estimator)).sub(task).abs().max()) == 0.0
    wrong = next(form for key, form in GRADIENTS.items() if form is not GRADIENTS[at, estimator] and key[0] == at)
    assert not torch.allclose(gradient, BETA * analytic(wrong), rtol=1e-2)


def test_k1_in_the_loss_has_no_gradient_and_is_refused():
    table = POLICY.clone().requires_grad_()
    logprobs = table.log_softmax(0)
    (logprobs.detach().exp() * kl_estimate(logprobs - REFERENCE.log_softmax(0), "k1")).sum().backward()
    assert float(table.grad.abs().max()) < 1e-12
    with pytest.raises(ConfigError, match="zero expected gradient"):
        KL(0.1, at="loss", estimator="k1")


def test_defaults_and_refusals():
    assert KL(0.1).estimator == "k1" and KL(0.1, at="loss").estimator == "k3"
    with pytest.raises(ConfigError, match="reward divergence"):
        KL(-0.1)
    with pytest.raises(ConfigError, match="both must be positive"):
        AdaptiveKL(target=0.0, horizon=10.0)


def test_adaptive_coefficient_by_hand():
    controller = AdaptiveKL(target=0.1, horizon=1000.0, clip=0.2)
    # KL 0.15: error 0.5, cut to 0.2 → β·(1 + 0.2·64/1000) = 0.05·1.0128
    assert controller.update(0.05, 0.15, 64) == pytest.approx(0.05 * 1.0128, rel=1e-12)
    # KL 0.11: error 0.1, inside the clip → 0.05·1.0064
    assert controller.update(0.05, 0.11, 64) == pytest.approx(0.05 * 1.0064, rel=1e-9)
    # on target nothing moves; below it β falls
    assert controller.update(0.05, 0.1, 64) == pytest.approx(0.05, rel=1e-12)
    assert controller.update(0.05, 0.0, 64) == pytest.approx(0.05 * (1 - 0.0128), rel=1e-12)


def test_only_an_adaptive_kl_moves():
    fixed, moving = KL(0.05), KL(0.05, adaptive=AdaptiveKL(0.1, 100.0))
    assert fixed.adapted(9.0, 50) is fixed
    assert moving.adapted(9.0, 50).coef == pytest.approx(0.05 * 1.1) and moving.coef == 0.05
