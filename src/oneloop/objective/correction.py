"""Off-policy correction: the sampler's distribution μ is not exactly π_old."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.objective.surrogate import LOG_RATIO_BOUND


@dataclass(frozen=True)
class TruncatedImportance:
    """w_t = min(π_old(a_t|s_t)/μ(a_t|s_t), cap), a constant factor of the token's loss; 1 where they agree.

    Reference: truncated importance sampling, Yao et al. 2025, "Your efficient RL framework secretly brings you
    off-policy RL training".
    """

    cap: float = 2.0

    def __call__(
        self, old_logprobs: Float[Tensor, "B T"], rollout_logprobs: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        log_ratio = (old_logprobs - rollout_logprobs).detach()
        return log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp().clamp(max=self.cap)

    @property
    def formula(self) -> str:
        return f"× min(π_old(aₜ|sₜ)/μ(aₜ|sₜ), {self.cap:g})"


def logprob_gap(old: Tensor, rollout: Tensor, mask: Tensor) -> dict[str, float]:
    """How far sampler and trainer disagree on the sampled tokens: mean and maximum of |log π_old − log μ|, nats."""
    gap = torch.where(mask, (old - rollout).abs(), 0.0)
    return {
        "rollout/logprob_gap_mean": float(gap.sum() / mask.sum().clamp(min=1)),
        "rollout/logprob_gap_max": float(gap.max()) if gap.numel() else 0.0,
    }
