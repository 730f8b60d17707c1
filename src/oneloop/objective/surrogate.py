"""The per-token objective: which function of the ratio ρ = π_θ/π_old multiplies the advantage.

Ratio level and clip are one value, because they are not independent: a sum type makes invalid mixtures unwritable.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""Log-ratios are cut to ±20 nats before exp: e²⁰ ≈ 5·10⁸ is far outside any trust region, and float32 stays finite
through the products that follow (exp overflows at 88.7). A ratio beyond it carries no gradient."""


@runtime_checkable
class Surrogate(Protocol):
    """Unreduced loss per token, and where the clip made its gradient 0."""

    uses_old: bool
    """Whether the ratio to π_old is taken."""
    proportional: bool
    """Whether a token with advantage 0 has no loss and no gradient, so that no pass need be spent on it."""

    def __call__(
        self,
        logprobs: Float[Tensor, "B T"],
        old_logprobs: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]: ...


def bounded_log_ratio(new: Tensor, old: Tensor, mask: Tensor) -> Float[Tensor, "B T"]:
    """log ρ within ±LOG_RATIO_BOUND, and 0 on masked slots whatever stands there."""
    difference = torch.where(mask, new, 0.0) - torch.where(mask, old, 0.0)
    return difference.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def _row_mean(log_ratio: Tensor, mask: Tensor) -> Float[Tensor, "B 1"]:
    """1/|o| Σ_t over the row's actions; `log_ratio` is 0 on masked slots."""
    return log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class ScoreFunction:
    """Plain policy gradient: L = −log π_θ(a_t|s_t) Â_t. No ratio, no clip.

    Reference: REINFORCE, Williams 1992. With Â = 1 this is the cross-entropy of SFT.
    """

    uses_old = False
    proportional = True

    def __call__(
        self,
        logprobs: Float[Tensor, "B T"],
        old_logprobs: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        loss = -torch.where(mask, logprobs, 0.0) * torch.where(mask, advantages, 0.0)
        return loss, torch.zeros_like(mask)

    def outside_band(self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        return torch.zeros_like(mask)

    @property
    def formula(self) -> str:
        return "−log π_θ(aₜ|sₜ) · Âₜ"


@dataclass(frozen=True)
class Ratio:
    """The surrogate without a clip: L = −ρ_t Â_t,  ρ_t = π_θ(a_t|s_t)/π_old(a_t|s_t).

    At θ_old its gradient is the policy gradient; away from it somebody else must bound the step.

    Reference: TRPO arXiv:1502.05477, eq. 14; L^CPI in PPO arXiv:1707.06347, eq. 6.
    """

    uses_old = True
    proportional = True

    def __call__(
        self,
        logprobs: Float[Tensor, "B T"],
        old_logprobs: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        advantages = torch.where(mask, advantages, 0.0)
        log_ratio = torch.where(mask, logprobs, 0.0) - torch.where(mask, old_logprobs, 0.0)
        ratio = log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()
        return -ratio * advantages, (log_ratio.abs() > LOG_RATIO_BOUND) & (advantages != 0)

    @property
    def formula(self) -> str:
        return "−ρ·Âₜ,  ρ = π_θ(aₜ|sₜ)/π_old(aₜ|sₜ)"


@dataclass(frozen=True)
class ClippedRatio:
    """PPO's clipped surrogate: L = −min(ρ_t Â_t, clip(ρ_t, 1−low, 1+high) Â_t).

    Args:
        low, high: the trust region; DAPO's clip-higher is high > low.
        level: "token": ρ_t = π_θ(a_t|s_t)/π_old(a_t|s_t). "sequence": the geometric mean over the row's actions,
            s = exp(1/|o| Σ_t log ρ_t), in its token form sg[s]·π_θ/sg[π_θ], which gives every token the row's ratio
            and its own gradient; equal to the sequence form when the row shares one advantage.
        dual: dual clip c > 1: where Â < 0 the objective is max(min(…), c·Â), which bounds the loss of a token whose
            ratio exploded.

    Reference: PPO arXiv:1707.06347 eq. 7; clip-higher DAPO arXiv:2503.14476 eq. 10; sequence level GSPO
    arXiv:2507.18071 eq. 5–7 and 13; dual clip arXiv:1912.09729 eq. 5.
    """

    low: float = 0.2
    high: float = 0.2
    level: Literal["token", "sequence"] = "token"
    dual: float | None = None

    uses_old = True
    proportional = True

    def __post_init__(self) -> None:
        if not (0 <= self.low <= 1 and self.high >= 0):
            raise ValueError(f"ClippedRatio(low={self.low}, high={self.high}): wanted 0 ≤ low ≤ 1 and high ≥ 0")
        if self.level not in ("token", "sequence"):
            raise ValueError(f"ClippedRatio(level={self.level!r}): wanted 'token' or 'sequence'")
        if self.dual is not None and not self.dual > 1:
            raise ValueError(f"ClippedRatio(dual={self.dual}): the dual clip must exceed 1; peers use 3 or 10")

    def __call__(
        self,
        logprobs: Float[Tensor, "B T"],
        old_logprobs: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        advantages = torch.where(mask, advantages, 0.0)
        log_ratio = self._log_ratio(logprobs, old_logprobs, mask)
        ratio = log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()
        gain, flat = advantages * ratio, log_ratio.abs() > LOG_RATIO_BOUND
        clipped = advantages * ratio.clamp(1 - self.low, 1 + self.high)
        flat = flat | (clipped < gain)
        gain = torch.minimum(gain, clipped)
        if self.dual is not None:
            floor = self.dual * advantages
            flat = flat | ((advantages < 0) & (gain < floor))
            gain = torch.where(advantages < 0, torch.maximum(gain, floor), gain)
        return -gain, flat & mask & (advantages != 0)

    def outside_band(self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        ratio = (log_ratio if self.level == "token" else _row_mean(log_ratio, mask)).exp()
        return mask & ((ratio < 1 - self.low) | (ratio > 1 + self.high))

    def _log_ratio(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
        logprobs = torch.where(mask, logprobs, 0.0)
        token = logprobs - torch.where(mask, old_logprobs, 0.0)
        if self.level == "token":
            return token
        mean = _row_mean(token, mask)
        # the bracket is exactly 0: added to `mean` first, a log-prob of −20 nats would round away a band of 3e-4
        return torch.where(mask, mean.detach() + (logprobs - logprobs.detach()), 0.0)

    @property
    def formula(self) -> str:
        band = f"clip(ρ, {1 - self.low:g}, {1 + self.high:g})"
        dual = "" if self.dual is None else f", floored at {self.dual:g}·Âₜ where Âₜ < 0"
        ratio = {
            "token": "ρ = π_θ(aₜ|sₜ)/π_old(aₜ|sₜ)",
            "sequence": "ρ = exp(1/|o| Σₜ log π_θ(aₜ|sₜ)/π_old(aₜ|sₜ)), one per sequence",
        }[self.level]
        return f"−min(ρ·Âₜ, {band}·Âₜ){dual},  {ratio}"


@dataclass(frozen=True)
class ClippedWeight:
    """CISPO: L = −sg[clip(ρ_t, 1−low, 1+high)] Â_t log π_θ(a_t|s_t).

    The clipped ratio is a constant weight, so that no token ever loses its gradient.

    Args:
        low, high: bounds of the weight; None leaves that side open.

    Reference: MiniMax-M1, arXiv:2506.13585, eq. 4–5, which has no lower bound and tunes the upper one.
    Differs: the default cap 1 + high = 5 is the value that later studies found robust.
    """

    low: float | None = None
    high: float | None = 4.0

    uses_old = True
    proportional = True

    def __call__(
        self,
        logprobs: Float[Tensor, "B T"],
        old_logprobs: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
        weight = bounded_log_ratio(logprobs.detach(), old_logprobs, mask).exp()
        low, high = self._bounds
        if low is not None or high is not None:
            weight = weight.clamp(low, high)
        loss = -weight * torch.where(mask, advantages, 0.0) * torch.where(mask, logprobs, 0.0)
        return loss, torch.zeros_like(mask)

    def outside_band(self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        ratio = log_ratio.exp()
        low, high = self._bounds
        below = torch.zeros_like(mask) if low is None else ratio < low
        return mask & (below if high is None else below | (ratio > high))

    @property
    def _bounds(self) -> tuple[float | None, float | None]:
        return (None if self.low is None else 1 - self.low), (None if self.high is None else 1 + self.high)

    @property
    def formula(self) -> str:
        low, high = ("none" if bound is None else f"{bound:g}" for bound in self._bounds)
        return f"−sg[clip(ρ, {low}, {high})] · Âₜ · log π_θ(aₜ|sₜ),  ρ = π_θ(aₜ|sₜ)/π_old(aₜ|sₜ)"
