"""Off-policy correction: the sampler's distribution μ is not exactly π_old."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
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


def logprob_gap(
    old: Float[Tensor, "B T"], rollout: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], each: Float[Tensor, "B T"]
) -> dict[str, Tensor]:
    """How far sampler and trainer disagree on the sampled tokens: |log π_old − log μ| in nats, weighted by `each`."""
    gap = torch.where(mask, (old - rollout).abs(), 0.0)
    largest = gap.amax() if gap.numel() else gap.sum()
    return {"rollout/logprob_gap": (each * gap).sum(), "rollout/logprob_gap/max": largest}
