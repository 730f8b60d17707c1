"""Policies and critics of Gymnasium agents: multi-layer perceptrons with a head for discrete or continuous actions.

Separate networks for policy and value with tanh between their layers, orthogonal weights (gain √2, 0.01 for actions, 1
for the value) and zero biases, as Stable-Baselines3 and CleanRL have them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from oneloop.objective import distributions
from oneloop.objective.distributions import Distribution

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Perceptron(nn.Module):
    """x → Wₖ tanh(… tanh(W₁ x + b₁) …) + bₖ.

    Args:
        sizes: of the observation, each hidden layer, and the output.
        gain: of the last layer's orthogonal weights.
    """

    def __init__(self, sizes: Sequence[int], gain: float, rng: torch.Generator) -> None:
        super().__init__()
        self._linear = [nn.Linear(before, after) for before, after in pairwise(sizes)]
        self.layers = nn.ModuleList(self._linear)
        for layer in self._linear:
            last = layer is self._linear[-1]
            nn.init.orthogonal_(layer.weight, gain if last else math.sqrt(2), generator=rng)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N O"]:
        *hidden, last = self._linear
        for layer in hidden:
            x = torch.tanh(linear(x, layer.weight, layer.bias))
        return linear(x, last.weight, last.bias)


class Policy(Protocol):
    """π_θ(a | s). `act` draws; `judge` says how likely actions are, by plain torch operations."""

    outputs: int
    """Numbers that the perceptron gives for a state."""

    def judge(
        self, outputs: Float[Tensor, "N O"], tokens: Int[Tensor, " N"], actions: Float[Tensor, "N A"] | None
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """log π_θ(a | s) and the entropy H[π_θ(· | s)], in nats."""
        ...

    def distribution(self, outputs: Float[Tensor, "N O"]) -> Distribution:
        """π_θ(· | s) of each row."""
        ...

    def noise(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """What draws of that shape need of chance."""
        ...

    def act(self, outputs: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """A draw for each row; without noise the most likely action."""
        ...


class Categorical(nn.Module):
    """One of `count` actions, by a softmax.

    A draw is argmax(logits + g), g of the standard Gumbel distribution (the Gumbel-max trick).
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.outputs = count

    def judge(
        self, outputs: Float[Tensor, "N O"], tokens: Int[Tensor, " N"], actions: Float[Tensor, "N A"] | None
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        logs = torch.log_softmax(outputs, -1)
        return logs.gather(1, tokens[:, None])[:, 0], -(logs.exp() * logs).sum(-1)

    def distribution(self, outputs: Float[Tensor, "N O"]) -> Distribution:
        return distributions.Categorical(outputs)

    def noise(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        return rng.gumbel(size=(*shape, self.outputs))

    def act(self, outputs: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        return (outputs if noise is None else outputs + noise).argmax(-1)


class Gaussian(nn.Module):
    """A vector of `count` numbers, each from N(μ(s), σ²); log σ is a parameter and does not depend on the state.

    log π(a | s) = −Σ_i [ ½((a_i − μ_i)/σ_i)² + log σ_i + ½ log 2π ],  H = Σ_i [ ½ + ½ log 2π + log σ_i ]
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.outputs = count
        self.log_std = nn.Parameter(torch.zeros(count))

    def judge(
        self, outputs: Float[Tensor, "N O"], tokens: Int[Tensor, " N"], actions: Float[Tensor, "N A"] | None
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        if actions is None:
            raise ValueError("a Gaussian policy judges vectors, and the batch has none")
        scaled = (actions - outputs) * torch.exp(-self.log_std)
        spread = self.log_std.sum()
        logprobs = -0.5 * scaled.square().sum(-1) - (spread + self.outputs * HALF_LOG_2PI)
        return logprobs, (spread + self.outputs * (0.5 + HALF_LOG_2PI)).expand(len(outputs))

    def distribution(self, outputs: Float[Tensor, "N O"]) -> Distribution:
        # a copy: what was measured stays as it was when the parameter moves
        return distributions.DiagonalGaussian(outputs, self.log_std.expand_as(outputs).clone())

    def noise(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        return rng.standard_normal((*shape, self.outputs), dtype=np.float32)

    def act(self, outputs: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        return outputs if noise is None else outputs + np.exp(self.log_std.detach().numpy()) * noise


class Agent(nn.Module):
    """A policy network with its head, and a critic beside it where there is one.

    Args:
        features: numbers of an observation.
        hidden: sizes of the hidden layers, for both networks.
    """

    def __init__(
        self, features: int, head: Categorical | Gaussian, hidden: Sequence[int], *, critic: bool, seed: int
    ) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.head = head
        self.network = Perceptron((features, *hidden, head.outputs), 0.01, rng)
        self.critic = Perceptron((features, *hidden, 1), 1.0, rng) if critic else None

    def policy_parameters(self) -> list[nn.Parameter]:
        return [*self.network.parameters(), *self.head.parameters()]

    def judge(
        self, observations: Float[Tensor, "N D"], tokens: Int[Tensor, " N"], actions: Float[Tensor, "N A"] | None
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
        """log π_θ(a | s) and the entropy at s, in nats."""
        return self.head.judge(self.network(observations), tokens, actions)

    def distribution(self, observations: Float[Tensor, "N D"]) -> Distribution:
        return self.head.distribution(self.network(observations))

    def values(self, observations: Float[Tensor, "N D"]) -> Float[Tensor, " N"] | None:
        return None if self.critic is None else self.critic(observations)[:, 0]

    def act(self, observations: Float[Tensor, "N D"], noise: np.ndarray | None) -> np.ndarray:
        """Actions, without gradient; without noise the most likely ones."""
        with torch.no_grad():
            return self.head.act(self.network(observations).numpy(), noise)
