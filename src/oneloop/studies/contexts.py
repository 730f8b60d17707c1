"""A contextual bandit behind the ports of the loop: the real `train` and the real algorithms on a table of logits.

A row is a prompt of one token, the context, and one action. Everything can be listed, so that the expected reward and
the KL between two policies are exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.distributions import Categorical
from oneloop.objective.divergence import exact_kl
from oneloop.objective.natural import taken
from oneloop.ports import Models
from oneloop.seeds import named_seed
from oneloop.studies.once import Once

CONTEXTS, ACTIONS = 16, 8


class TablePolicy(nn.Module):
    """Implements `oneloop.ports.TwiceDifferentiable`: logits and a value for each context, Adam.

    Args:
        start: logits before the first update, which are the reference's; left out, a uniform policy.
    """

    def __init__(
        self,
        learning_rate: float,
        critic_rate: float = 0.1,
        *,
        actions: int = ACTIONS,
        start: Float[Tensor, "C A"] | None = None,
    ) -> None:
        super().__init__()
        self.start = torch.zeros(CONTEXTS, actions, dtype=torch.float64) if start is None else start
        self.logits = nn.Parameter(self.start.clone())
        self.values = nn.Parameter(torch.zeros(CONTEXTS, dtype=torch.float64))
        rates = [{"params": [self.logits], "lr": learning_rate}, {"params": [self.values], "lr": critic_rate}]
        self._optimizer = torch.optim.Adam(rates)

    def policy(self, batch: Batch) -> PolicyOutput:
        table = torch.log_softmax(self.logits[batch.tokens[:, 0]], -1)
        blank = torch.zeros(len(batch), 1, dtype=torch.float64)
        taken = table.gather(1, batch.tokens[:, 1:])
        entropy = -(table.exp() * table).sum(1, keepdim=True)
        values = self.values[batch.tokens[:, :1]]
        return PolicyOutput(*(torch.cat([blank, one], 1) for one in (taken, entropy, values)))

    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        """The policy before its first update."""
        table = torch.log_softmax(self.start[batch.tokens[:, 0]], -1)
        return torch.cat([torch.zeros(len(batch), 1, dtype=torch.float64), table.gather(1, batch.tokens[:, 1:])], 1)

    def step(self) -> Mapping[str, float]:
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        self._optimizer.step()
        self._optimizer.zero_grad()
        return {"grad_norm": float(norm)}

    def forget(self) -> None:
        self._optimizer.zero_grad()

    def skip(self) -> Mapping[str, float]:
        raise RuntimeError("a gradient of a study is not finite")

    def policy_parameters(self) -> Sequence[Tensor]:
        return [self.logits]

    def take_gradient(self) -> Float[Tensor, " n"]:
        return taken([self.logits])

    def distribution(self, batch: Batch) -> Categorical:
        return Categorical(self.logits[batch.tokens[:, 0]])

    def table(self) -> Float[Tensor, "C A"]:
        """The logits as they are now."""
        return self.logits.detach().clone()


class Draws(Once):
    """Implements `oneloop.ports.Experience`: groups of every context, drawn from the policy of `staleness` updates ago.

    Args:
        noise: standard deviation of what is added to each reward.
        rewards: of every action in every context; left out, uniform in [0, 1] by the seed.
    """

    def __init__(
        self,
        models: TablePolicy,
        seed: int,
        *,
        group_size: int,
        noise: float,
        staleness: int = 0,
        rewards: Float[Tensor, "C A"] | None = None,
    ) -> None:
        rng = torch.Generator().manual_seed(named_seed("contexts", seed))
        drawn = torch.rand(CONTEXTS, ACTIONS, generator=rng, dtype=torch.float64)
        self.rewards = drawn if rewards is None else rewards
        self.steps: list[Float[Tensor, "C A"]] = []
        """The policy's logits before the first update and after each step."""
        self.drawn: list[Int[Tensor, "B 2"]] = []
        """Context and action of each answer that a step was trained on."""
        self._models, self._seed, self._group_size = models, seed, group_size
        self._noise = noise
        self._past = deque([models.table()], maxlen=staleness + 1)

    def batch(self, step: int) -> Batch:
        rng = torch.Generator().manual_seed(named_seed("contexts", self._seed, step))
        drawn = torch.log_softmax(self._past[0], -1)
        contexts = torch.arange(CONTEXTS).repeat_interleave(self._group_size)
        actions = torch.multinomial(drawn.exp(), self._group_size, replacement=True, generator=rng).reshape(-1)
        blank = torch.zeros(len(contexts), 1, dtype=torch.float64)
        rewards = self.rewards[contexts, actions]
        rewards = rewards + self._noise * torch.randn(len(contexts), generator=rng, dtype=torch.float64)
        rollout = torch.cat([blank, drawn[contexts, actions][:, None]], 1)
        if not self.steps:
            self.steps.append(self._models.table())
        self.drawn.append(torch.stack([contexts, actions], 1))
        return Batch(
            tokens=self.drawn[-1],
            mask=torch.tensor([False, True]).repeat(len(contexts), 1),
            group=contexts,
            rewards=torch.cat([blank, rewards[:, None]], 1),
            truncated=torch.zeros(len(contexts), dtype=torch.bool),
            rollout_logprobs=rollout,
        )

    def update(self, models: Models, step: int) -> None:
        self._past.append(self._models.table())
        self.steps.append(self._models.table())

    def expected(self, logits: Float[Tensor, "C A"]) -> float:
        """E[reward], a mean over contexts."""
        return float((torch.softmax(logits, -1) * self.rewards).sum(1).mean())


def true_kl(old: Float[Tensor, "C A"], new: Float[Tensor, "C A"]) -> float:
    """KL(π_old ‖ π_new) in nats, a mean over contexts."""
    return float(exact_kl(old, new).mean())


def optimum(rewards: Float[Tensor, "C A"]) -> float:
    """The best expected reward that a policy can have, a mean over contexts."""
    return float(rewards.amax(1).mean())
