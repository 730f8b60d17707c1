"""An agent behind the loop's `Models` port: its passes, and an optimizer step of few and small operations."""

from __future__ import annotations

from copy import deepcopy
from math import isfinite, nan

import torch
from jaxtyping import Float
from torch import Tensor, nn

from oneloop.batch import Batch, PolicyOutput
from oneloop.classic.policy import Agent
from oneloop.classic.transitions import Pieces, Transitions
from oneloop.errors import DivergedError
from oneloop.model.optimizer import MOST_SKIPS, Optimization
from oneloop.objective.distributions import Distribution
from oneloop.ports import SingleProcess, World

ADAM_EPS = 1e-5
"""As Stable-Baselines3 and CleanRL have it for PPO."""


class AgentLearner:
    """Implements `oneloop.ports.Models`, `TwiceDifferentiable` and `AskedForValues`.

    Args:
        agent: its parameters are moved into one tensor each for policy and critic.
        reference: whether a frozen copy of the policy as it is now answers for π_ref.
        natural: the policy is moved by a trust region: the optimizer has the critic alone.
    """

    sharded = False
    """No rank has a share."""

    def __init__(
        self, agent: Agent, *, optimization: Optimization, reference: bool = False, natural: bool = False
    ) -> None:
        self.model, self.optimization = agent, optimization
        self._reference = deepcopy(agent).requires_grad_(False) if reference else None
        self.device = torch.device("cpu")
        self.updates = 0
        self.skipped_in_a_row = 0
        rates = {"policy": optimization.learning_rate, "critic": optimization.critic_learning_rate}
        critic = [] if agent.critic is None else list(agent.critic.parameters())
        members = {"policy": agent.policy_parameters(), "critic": critic}
        self._flat = {name: laid_end_to_end(own) for name, own in members.items() if own}
        self._optimized = {name: flat for name, flat in self._flat.items() if not (natural and name == "policy")}
        groups = [{"params": [flat], "lr": rates[name], "rate": rates[name]} for name, flat in self._optimized.items()]
        decay = optimization.weight_decay
        self.optimizer = torch.optim.AdamW(groups, eps=ADAM_EPS, weight_decay=decay, fused=True)

    @property
    def writers(self) -> World:
        return SingleProcess()

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, as the optimizer has it: one tensor for the policy and one for the critic."""
        return dict(self._flat)

    def optimized_parameters(self) -> dict[str, nn.Parameter]:
        """Those of `named_parameters` that the optimizer moves, and has moments of."""
        return dict(self._optimized)

    def policy_parameters(self) -> list[nn.Parameter]:
        """All that log π_θ depends on."""
        return self.model.policy_parameters()

    def take_gradient(self) -> Float[Tensor, " n"]:
        """What was added up for `policy_parameters`, end to end. A `step` after that moves the critic alone."""
        gradient = self._flat["policy"].grad
        assert gradient is not None
        taken = gradient.clone()
        gradient.zero_()
        return taken

    def distribution(self, batch: Batch) -> Distribution:
        """π_θ(· | s) of each environment step."""
        observations = batch.observations if isinstance(batch, Transitions) else _states(_pieces(batch))[0]
        return self.model.distribution(observations)

    def check_weights(self) -> None:
        """Raises: DivergedError for weights that are no numbers."""
        for name, flat in self._flat.items():
            if not bool(torch.isfinite(flat).all()):
                raise DivergedError(
                    f"the {name}'s weights are not finite, and are not saved. Fix: go on from an older checkpoint with "
                    "a lower --learning-rate"
                )

    def phase(self, name: str) -> None: ...

    def policy(self, batch: Batch) -> PolicyOutput:
        if isinstance(batch, Transitions):
            logprobs, entropy = self.model.judge(batch.observations, batch.tokens[:, 0], batch.actions)
            return PolicyOutput(logprobs[:, None], entropy[:, None], self.critic_values(batch))
        pieces = _pieces(batch)
        steps = _states(pieces)
        logprobs, entropy = self.model.judge(*steps)
        return PolicyOutput(
            _in_place(logprobs, pieces),
            _in_place(entropy, pieces),
            values=self.critic_values(pieces),
            final_values=self.model.values(pieces.last),
        )

    def critic_values(self, batch: Batch) -> Float[Tensor, "B T"] | None:
        """V(s_t) of each environment step; None without a critic."""
        if isinstance(batch, Transitions):
            values = self.model.values(batch.observations)
            return None if values is None else values[:, None]
        pieces = _pieces(batch)
        values = self.model.values(_states(pieces)[0])
        return None if values is None else _in_place(values, pieces)

    @torch.no_grad()
    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        if self._reference is None:
            raise ValueError("this run has no reference policy: its algorithm's `needs` does not name one")
        if isinstance(batch, Transitions):
            return self._reference.judge(batch.observations, batch.tokens[:, 0], batch.actions)[0][:, None]
        pieces = _pieces(batch)
        return _in_place(self._reference.judge(*_states(pieces))[0], pieces)

    def step(self) -> dict[str, float]:
        gradients = [flat.grad for flat in self._flat.values() if flat.grad is not None]
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        if not isfinite(norm):
            return self.skip()
        if norm > self.optimization.max_grad_norm:
            for gradient in gradients:
                gradient.mul_(self.optimization.max_grad_norm / (norm + 1e-6))
        self.skipped_in_a_row = 0
        factor = self.optimization.factor(self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        self.optimizer.step()
        self.forget()
        self.updates += 1
        return {"grad_norm": norm, "learning_rate": self.optimization.learning_rate * factor}

    def forget(self) -> None:
        # in place: every parameter's gradient is a part of these
        for flat in self._flat.values():
            assert flat.grad is not None
            flat.grad.zero_()

    def skip(self) -> dict[str, float]:
        self.forget()
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= MOST_SKIPS:
            raise DivergedError(
                f"numbers were not finite in {MOST_SKIPS} optimizer steps in a row; weights are those before the "
                "first. Fix: a lower --learning-rate, or --normalize observations rewards"
            )
        return {"grad_norm": nan, "skipped_steps": 1}


def laid_end_to_end(parameters: list[nn.Parameter]) -> nn.Parameter:
    """One tensor with all of them, whose parts they become, and so do their gradients: one optimizer step for all."""
    flat = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, data, gradient in zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True):
        parameter.data, parameter.grad = data.view_as(parameter), gradient.view_as(parameter)
    return flat


def _pieces(batch: Batch) -> Pieces:
    if not isinstance(batch, Pieces):
        raise ValueError(f"an agent reads Pieces and Transitions, not {type(batch).__name__}: no observations")
    return batch


def _states(pieces: Pieces) -> tuple[Tensor, Tensor, Tensor | None]:
    """Observations, tokens and actions of its steps, padding left out."""
    mask = pieces.mask
    return pieces.observations[mask], pieces.tokens[mask], None if pieces.actions is None else pieces.actions[mask]


def _in_place(values: Tensor, pieces: Pieces) -> Float[Tensor, "B T"]:
    return torch.zeros(pieces.mask.shape).masked_scatter(pieces.mask, values)
