"""A softmax bandit whose true gradient is known, and what the library's objectives make of every group there can be.

K answers of one prompt are K draws of one of A arms. Their order does not matter, so that the expectation over all
groups is a sum over the C(K+A−1, A−1) multisets, each with its multinomial probability: exact, without sampling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.algorithms import PPO, Critic, PolicyGradient
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.advantage import GAE, AdvantageEstimator


@dataclass(frozen=True, eq=False)
class Bandit:
    """J = Σ_a π_a r_a with π = softmax(logits)."""

    logits: Float[Tensor, " A"]
    rewards: Float[Tensor, " A"]

    @property
    def policy(self) -> Float[Tensor, " A"]:
        return torch.softmax(self.logits, -1)

    @property
    def value(self) -> Float[Tensor, ""]:
        return self.policy @ self.rewards

    @property
    def gradient(self) -> Float[Tensor, " A"]:
        """∂J/∂logits = π_a (r_a − J)."""
        return self.policy * (self.rewards - self.value)


class RowPolicy:
    """Implements `oneloop.ports.Models`: logits of each row's own, so that each row's gradient can be told apart."""

    def __init__(self, bandit: Bandit, rows: int) -> None:
        self.logits = bandit.logits.repeat(rows, 1).requires_grad_()
        self._value = bandit.value

    def policy(self, batch: Batch) -> PolicyOutput:
        logprobs = torch.log_softmax(self.logits, -1).gather(1, batch.tokens)
        return PolicyOutput(logprobs, values=self._value.expand(logprobs.shape))

    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        raise NotImplementedError("no study of the bandit asks for a reference")

    def step(self) -> dict[str, float]:
        raise NotImplementedError("a gradient is looked at, not followed")


class Groups(NamedTuple):
    """Every multiset of K arms, and its probability under a policy."""

    arms: Int[Tensor, "M K"]
    orders: Float[Tensor, " M"]
    """K!/Π_a n_a!, in how many orders it can be drawn."""

    def chance(self, policy: Float[Tensor, " A"]) -> Float[Tensor, " M"]:
        return self.orders * policy[self.arms].prod(1)


@lru_cache(maxsize=64)
def groups_of(arms: int, size: int) -> Groups:
    found = list(combinations_with_replacement(range(arms), size))
    orders = [factorial(size) / prod(factorial(one.count(arm)) for arm in set(one)) for one in found]
    return Groups(torch.tensor(found), torch.tensor(orders, dtype=torch.float64))


def with_advantage(advantage: AdvantageEstimator) -> PolicyGradient:
    """PPO with that advantage, and nothing else that would move the gradient of its first update."""
    critic = Critic(coef=0.0) if advantage.uses_values else None
    return replace(PPO, advantage=advantage, kl=None, critic=critic, epochs=1, target_kl=None, name="studied")


EXACT = GAE(gamma=1.0, lam=1.0, whiten=False)
"""With the bandit's own value as the critic's: the baseline without any error."""


class Estimate(NamedTuple):
    """Of the gradient from one group, over all groups that there can be."""

    mean: Float[Tensor, " A"]
    variance: Float[Tensor, ""]
    """Σ over the gradient's components."""


def estimate(bandit: Bandit, advantage: AdvantageEstimator, size: int) -> Estimate:
    """What the gradient of a group of `size` answers is on average, and how far it scatters."""
    groups = groups_of(len(bandit.logits), size)
    each = group_gradients(bandit, advantage, groups.arms)
    chance = groups.chance(bandit.policy)[:, None]
    mean = (chance * each).sum(0)
    return Estimate(mean, (chance * (each - mean).square()).sum())


def group_gradients(bandit: Bandit, advantage: AdvantageEstimator, arms: Int[Tensor, "M K"]) -> Float[Tensor, "M A"]:
    """The direction in which each group moves the logits: −∂loss/∂logits, by the library's own objective."""
    count, size = arms.shape
    tokens = arms.reshape(-1, 1)
    rows = len(tokens)
    batch = Batch(
        tokens=tokens,
        mask=torch.ones(rows, 1, dtype=torch.bool),
        group=torch.arange(count).repeat_interleave(size),
        rewards=bandit.rewards[tokens],
        truncated=torch.zeros(rows, dtype=torch.bool),
    )
    algorithm, models = with_advantage(advantage), RowPolicy(bandit, rows)
    batch = algorithm.prepare(batch, models)
    algorithm.loss(models.policy(batch), batch, batch.size).value.backward()
    assert models.logits.grad is not None
    # the loss is a mean over all rows; each group's own is the mean over its K
    return -models.logits.grad.reshape(count, size, -1).sum(1) * count
