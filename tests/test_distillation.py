"""On-policy distillation: its expected gradient is that of the exact reverse KL, over every sequence there is."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from oneloop.algorithms import DISTILL, REINFORCE
from oneloop.batch import Batch
from oneloop.objective.advantage import NoBaseline
from oneloop.objective.divergence import KL, exact_kl
from toy_models import VOCABULARY, Bigram

LENGTH = 2


def every_sequence():
    """All answers of two tokens to the prompt 0, as one batch."""
    tokens = torch.tensor([(0, *answer) for answer in product(range(VOCABULARY), repeat=LENGTH)])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    zeros = torch.zeros(tokens.shape, dtype=torch.float64)
    return Batch(tokens, mask, torch.arange(len(tokens)), zeros, torch.zeros(len(tokens), dtype=torch.bool))


def logits(models, batch):
    after = models.states(batch.tokens)
    return torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1) @ models.head.T


def expected_gradient(algorithm):
    """Σ_y π_θ(y) of each sequence's own gradient, which is weighted as in a batch of that sequence alone."""
    models = Bigram(0, reference=Bigram(7))
    batch = algorithm.prepare(every_sequence(), models)
    with torch.no_grad():
        logprobs = models.policy(batch).logprobs
        share = torch.where(batch.mask, logprobs, 0.0).sum(1).exp()
    assert float(share.sum()) == pytest.approx(1.0)
    for row in range(len(batch)):
        one = batch.rows(torch.tensor([row]))
        (share[row] * algorithm.loss(models.policy(one), one, one.size).value).backward()
    return models.gradient()


def exact_gradient(*, states_move):
    """Of Σ_t E_y KL(π_θ(·|s_t) ‖ π_T(·|s_t)) / T, with the states' distribution held still or not."""
    models, teacher = Bigram(0), Bigram(7)
    batch = every_sequence()
    share = torch.where(batch.mask, models.policy(batch).logprobs, 0.0).sum(1).exp()
    share = share if states_move else share.detach()
    apart = exact_kl(logits(models, batch), logits(teacher, batch).detach())
    ((share[:, None] * torch.where(batch.mask, apart, 0.0)).sum() / LENGTH).backward()
    return models.gradient()


def test_its_expected_gradient_is_that_of_the_exact_reverse_kl():
    wanted = exact_gradient(states_move=False)
    torch.testing.assert_close(expected_gradient(DISTILL), wanted, rtol=1e-6, atol=1e-9)
    # the same in the loss, differentiated: x²/2 has the gradient x·∇log π_θ
    at_loss = replace(DISTILL, kl=KL(1.0, at="loss", estimator="k2"))
    torch.testing.assert_close(expected_gradient(at_loss), wanted, rtol=1e-6, atol=1e-9)


def test_with_tokens_that_answer_for_later_ones_it_is_that_of_the_sequence():
    whole = replace(DISTILL, advantage=NoBaseline(gamma=1.0))
    torch.testing.assert_close(expected_gradient(whole), exact_gradient(states_move=True), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "mutant",
    [
        replace(DISTILL, advantage=NoBaseline(gamma=1.0)),
        replace(DISTILL, kl=KL(1.0, at="loss", estimator="k3")),  # the gradient of the other direction, KL(π_T ‖ π_θ)
        replace(DISTILL, kl=KL(1.0, estimator="k2")),
        replace(DISTILL, kl=KL(0.5)),
    ],
    ids=lambda a: f"{a.advantage} {a.kl}",
)
def test_other_pieces_are_other_gradients(mutant):
    wanted = exact_gradient(states_move=False)
    assert float((expected_gradient(mutant) - wanted).norm()) > 0.02 * float(wanted.norm())


def test_at_the_teacher_nothing_pulls():
    """The student that is the teacher has advantage 0 at every token, not on average only."""
    models = Bigram(0)
    batch = DISTILL.prepare(every_sequence(), models)
    assert float(batch.advantages.abs().max()) == 0.0
    assert float(DISTILL.loss(models.policy(batch), batch, batch.size).stats["kl"]) == 0.0


def test_its_value_is_reinforce_whose_reward_is_the_teacher():
    assert replace(DISTILL, kl=None, advantage=NoBaseline(), name="reinforce") == REINFORCE


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_reward_to_go_with_a_discount(gamma):
    # rewards 1, 2, 4 at the actions, the middle slot is a tool's: 4; 2 + 4γ; 1 + 2γ + 4γ²
    rewards = torch.tensor([[1.0, 2.0, 9.0, 4.0]])
    mask = torch.tensor([[True, True, False, True]])
    found = NoBaseline(gamma)(rewards, None, mask, torch.tensor([0])).advantages[0].tolist()
    assert found == pytest.approx([1 + 2 * gamma + 4 * gamma**2, 2 + 4 * gamma, 0.0, 4.0])
