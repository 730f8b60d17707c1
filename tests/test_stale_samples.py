"""Samples of an older policy, corrected by π_old/μ, give the gradient that samples of the policy itself would give."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from oneloop.algorithms import REINFORCE
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.aggregate import FixedLength
from oneloop.objective.correction import TruncatedImportance
from toy_models import Bigram

TOKENS, LENGTH = 3, 3
ALGORITHM = replace(REINFORCE, aggregate=FixedLength(tokens=LENGTH))
NONE = TruncatedImportance(cap=float("inf"))


class Table:
    """A policy over three tokens, each place with its own logits: every state is met as often under any policy."""

    def __init__(self, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(LENGTH, TOKENS, generator=rng, dtype=torch.float64, requires_grad=True)

    def logprobs(self, sequences):
        return self.logits.log_softmax(-1)[torch.arange(LENGTH), sequences]


def expected_gradient(policy: Table, sampler: Table, correction) -> torch.Tensor:
    """Σ over all 27 sequences y of μ(y) · ∇ loss(y): what a batch of μ's samples gives on average."""
    algorithm = replace(ALGORITHM, correction=correction)
    total = torch.zeros_like(policy.logits)
    worth = torch.tensor([0.3, 1.0, -0.4], dtype=torch.float64)
    for sequence in product(range(TOKENS), repeat=LENGTH):
        tokens = torch.tensor([[0, *sequence]])
        mask = torch.tensor([[False, True, True, True]])
        rollout = torch.zeros(1, LENGTH + 1, dtype=torch.float64)
        rollout[0, 1:] = sampler.logprobs(torch.tensor(sequence)).detach()
        rewards = torch.zeros(1, LENGTH + 1, dtype=torch.float64)
        rewards[0, 1:] = worth[list(sequence)]
        out = torch.zeros(1, LENGTH + 1, dtype=torch.float64)
        out = torch.cat([out[:, :1], policy.logprobs(torch.tensor(sequence))[None]], 1)
        batch = Batch(
            tokens=tokens, mask=mask, group=torch.tensor([0]), rewards=rewards, truncated=torch.tensor([False]),
            rollout_logprobs=rollout, old_logprobs=out.detach(),
        )  # fmt: skip
        batch = algorithm.prepare(batch, Bigram())
        loss = algorithm.loss(PolicyOutput(out), batch, batch.size)
        (gradient,) = torch.autograd.grad(loss.value, policy.logits)
        total += rollout[0, 1:].sum().exp() * gradient
    return total


def test_corrected_samples_of_an_older_policy_give_the_policys_own_gradient() -> None:
    policy, older = Table(0), Table(1)
    own = expected_gradient(policy, policy, None)
    assert expected_gradient(policy, older, NONE) == pytest.approx(own, abs=1e-7)
    assert float(own.abs().max()) > 0.05
    assert expected_gradient(policy, policy, NONE) == pytest.approx(own, abs=1e-12), "a factor of 1 where they agree"


def test_without_a_correction_or_with_a_low_cap_they_do_not() -> None:
    policy, older = Table(0), Table(1)
    own = expected_gradient(policy, policy, None)
    assert float((expected_gradient(policy, older, None) - own).abs().max()) > 0.05
    assert float((expected_gradient(policy, older, TruncatedImportance(cap=1.0)) - own).abs().max()) > 0.01
