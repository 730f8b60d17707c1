"""A step to the edge of a trust region, in the place of the optimizer's: TRPO, and the natural gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.batch import Batch, PolicyOutput
from oneloop.errors import ConfigError
from oneloop.objective.natural import (
    Attempt,
    Product,
    Searched,
    conjugate_gradient,
    fisher_vector_product,
    line_search,
)
from oneloop.ports import AskedForValues, Models, TwiceDifferentiable, World

Part = Callable[[PolicyOutput, Batch], Float[Tensor, ""]]
"""The policy's part of an algorithm's loss, of some of a minibatch's rows."""
Error = Callable[[Float[Tensor, "B T"] | None, Batch], Float[Tensor, ""]]
"""The critic's part, from V of those rows."""


@dataclass(frozen=True)
class TrustRegion:
    """How far one step may move the policy, and who finds the step.

    max_θ L(θ)  subject to  mean over states of KL(π_old(·|s) ‖ π_θ(·|s)) ≤ δ

    is solved for L linear and the KL quadratic: x = F⁻¹g by conjugate gradient, Δθ = √(2δ / gᵀx) · x, with g = ∇L and
    F the Fisher information. The line search then shortens the step until the true KL is within δ and the true L
    better than before; where no length is, the weights stay as they are.

    The step owns the policy: all its parameters, a trunk that a value head reads included. A critic is fitted to the
    same batch by the optimizer, before the step; of a value head on the policy's trunk, the head alone.
    π_old is the policy before the step, and the KL the exact sum over the vocabulary, a mean over the action tokens
    of the minibatch.

    Args:
        max_kl: δ, nats per action token.
        damping: c in (F + c·1) x = g, which keeps directions that F does not know from being endless.
        cg_iterations: of conjugate gradient: one product with F each.
        backtracks: how often the step may be shortened; None: no line search. The whole step is taken, and nothing
            but the quadratic model speaks for its KL: the natural gradient.
        shrink: factor of the step at each shortening.
        critic_steps: optimizer steps of the critic on each minibatch.

    Reference: TRPO arXiv:1502.05477, eq. 12 and appendix C; δ 0.01, damping 0.1 and 10 iterations are those of its
    experiments and code; natural gradient: Kakade 2001. Differs: states are not thinned out for F.
    """

    max_kl: float = 0.01
    damping: float = 0.1
    cg_iterations: int = 10
    backtracks: int | None = 10
    shrink: float = 0.8
    critic_steps: int = 10

    def __post_init__(self) -> None:
        wanted = {
            "max_kl": (self.max_kl > 0, "a positive number of nats per action token"),
            "damping": (self.damping >= 0, "0 or more"),
            "cg_iterations": (self.cg_iterations >= 1, "at least 1"),
            "backtracks": (self.backtracks is None or self.backtracks >= 0, "0 or more, or none for no line search"),
            "shrink": (0 < self.shrink < 1, "a factor between 0 and 1"),
            "critic_steps": (self.critic_steps >= 1, "at least 1"),
        }
        for name, (holds, what) in wanted.items():
            if not holds:
                raise ConfigError(f"TrustRegion({name}={getattr(self, name)}): wanted {what}")

    @property
    def formula(self) -> str:
        damped = f"(F + {self.damping:g}·1)x = g" if self.damping else "Fx = g"
        step = f"Δθ = √(2δ/gᵀx)·x,  {damped} by {self.cg_iterations} of conjugate gradient,  δ = {self.max_kl:g}"
        if self.backtracks is None:
            return f"{step};  taken whole: KL(π_old‖π_θ) ≈ δ"
        search = f"·{self.shrink:g} up to {self.backtracks} times, until KL(π_old‖π_θ) ≤ δ and the loss falls"
        return f"{step};  then {search}"

    def step(
        self, models: Models, mini: Batch, max_tokens: int, world: World, loss: Part, error: Error | None
    ) -> Mapping[str, float]:
        """Move the policy along the gradient that was added up over `mini`, and fit the critic.

        Args:
            loss: of the policy, with `mini` whole.
            error: of the critic, by microbatch; None: there is none.

        Returns: `trust/*`. A step that the line search rejects has `trust/accepted` 0, and every weight of the policy
            is the same to the bit.

        Raises: ConfigError for models that cannot be differentiated twice.
        """
        if not isinstance(models, TwiceDifferentiable):
            raise ConfigError(
                f"{type(models).__name__} has not all that a trust region asks for: policy_parameters(), "
                "take_gradient() and distribution(batch), see oneloop.ports.TwiceDifferentiable. Fix: add them, or "
                "region=None"
            )
        gradient = world.add(models.take_gradient())
        norm, mine = float(gradient.norm()), _mine(world, mini, max_tokens)
        if not isfinite(norm):
            return models.skip()
        fisher = Fisher(models, mine, mini.size.tokens, world)
        solved = conjugate_gradient(lambda v: fisher(v) + self.damping * v, gradient, self.cg_iterations)
        slope = float(gradient @ solved.x)
        if not isfinite(slope):
            return models.skip()
        fitted = self._fit(models, mine, error)
        if fitted.get("skipped_steps"):
            return fitted
        whole = -sqrt(2 * self.max_kl / slope) * solved.x if slope > 0 else torch.zeros_like(solved.x)
        climb = _Climb(models, whole, mini, mine, world, loss)
        searched = self._searched(climb)
        if searched.attempt is None:
            climb.back()
        kl, gain = searched.attempt or Attempt(0.0, 0.0)
        return {
            "grad_norm": norm,
            "trust/kl": kl,
            "trust/gain": gain,
            "trust/accepted": float(searched.attempt is not None),
            "trust/backtracks": float(searched.shortened),
            "trust/cg_residual": solved.residual,
        } | ({} if error is None else {"critic/grad_norm": fitted["grad_norm"]})

    def _searched(self, climb: Callable[[float], Attempt]) -> Searched:
        if self.backtracks is not None:
            return line_search(climb, max_kl=self.max_kl, backtracks=self.backtracks, shrink=self.shrink)
        found = climb(1.0)
        return Searched(0, found if isfinite(found.kl) else None)

    def _fit(self, models: TwiceDifferentiable, mine: Sequence[Batch], error: Error | None) -> Mapping[str, float]:
        """The optimizer's steps on the critic; without one, a single step, of nothing, which is counted."""
        stats: Mapping[str, float] = {}
        for _ in range(1 if error is None else self.critic_steps):
            if error is not None:
                for micro in mine:
                    error(_values(models, micro), micro).backward()
            models.take_gradient()  # what the critic's error would have of a trunk that they share
            stats = models.step()
            if stats.get("skipped_steps"):
                break
        return stats


class Fisher:
    """v → F v of a minibatch: the sum over its passes, on all ranks.

    The graph of a single pass is kept from product to product; of several, each is made again, so that memory is that
    of one.
    """

    def __init__(self, models: TwiceDifferentiable, mine: Sequence[Batch], tokens: int, world: World) -> None:
        self._models, self._mine, self._tokens, self._world = models, mine, tokens, world
        self._kept = self._product(mine[0]) if len(mine) == 1 else None

    def __call__(self, v: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        total = torch.zeros_like(v)
        for micro in self._mine:
            total += (self._kept or self._product(micro))(v)
        return self._world.add(total)

    def _product(self, micro: Batch) -> Product:
        with torch.enable_grad():
            here = self._models.distribution(micro)
            kl = here.detached().kl(here).sum() / self._tokens
            return fisher_vector_product(kl, list(self._models.policy_parameters()))


class _Climb:
    """Sets weights on the way from where they are along `whole`, and measures what comes of it."""

    def __init__(
        self,
        models: TwiceDifferentiable,
        whole: Float[Tensor, " n"],
        mini: Batch,
        mine: Sequence[Batch],
        world: World,
        loss: Part,
    ) -> None:
        self._models, self._mine, self._world, self._loss = models, mine, world, loss
        self._parameters = parameters = list(models.policy_parameters())
        self._start = [parameter.detach().clone() for parameter in parameters]
        pieces = whole.split([parameter.numel() for parameter in parameters])
        self._way = [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]
        with torch.no_grad():
            out = models.policy(mini)
            self._old = [models.distribution(micro) for micro in mine]
        # the gradient was taken at ratio 1 where the batch has no π_old of its own
        self._mini = mini if mini.old_logprobs is not None else replace(mini, old_logprobs=out.logprobs)
        self._before = float(loss(out, self._mini))

    @torch.no_grad()
    def __call__(self, fraction: float) -> Attempt:
        for parameter, start, way in zip(self._parameters, self._start, self._way, strict=True):
            parameter.copy_(start + fraction * way)
        pairs = zip(self._mine, self._old, strict=True)
        here = sum(float(old.kl(self._models.distribution(micro)).sum()) for micro, old in pairs)
        kl = self._world.sum({"kl": here})["kl"] / self._mini.size.tokens
        return Attempt(kl, self._before - float(self._loss(self._models.policy(self._mini), self._mini)))

    @torch.no_grad()
    def back(self) -> None:
        """To the very bits."""
        for parameter, start in zip(self._parameters, self._start, strict=True):
            parameter.copy_(start)


def _values(models: Models, batch: Batch) -> Float[Tensor, "B T"] | None:
    """The critic's, and of the policy no more than that needs."""
    return models.critic_values(batch) if isinstance(models, AskedForValues) else models.policy(batch).values


def _mine(world: World, mini: Batch, max_tokens: int) -> list[Batch]:
    """This rank's passes."""
    return [micro for micro in world.share(list(mini.microbatches(max_tokens))) if micro is not None]
