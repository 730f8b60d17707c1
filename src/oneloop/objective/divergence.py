"""How far the policy is from the reference: sampled estimates, the exact sum, and what a run does with them."""

from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.errors import ConfigError
from oneloop.objective.surrogate import LOG_RATIO_BOUND

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(log_ratio: Float[Tensor, "*shape"], estimator: Estimator = "k3") -> Float[Tensor, "*shape"]:
    """Per-token estimate of KL(π_θ ‖ π_ref) in nats from x = log π_θ − log π_ref of a token drawn from π_θ.

    k1 = x (unbiased, any sign);   k2 = x²/2 (biased, ≥ 0);   k3 = e^(−x) − 1 + x (unbiased, ≥ 0)

    In k3, x is cut below at −LOG_RATIO_BOUND, where it carries no gradient; all else is as printed.

    Reference: Schulman, "Approximating KL divergence", 2020; k3 is GRPO's, arXiv:2402.03300, eq. 4.
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    if estimator == "k3":
        bounded = log_ratio.clamp(min=-LOG_RATIO_BOUND)
        return torch.expm1(-bounded) + bounded
    raise ConfigError(f"KL estimator {estimator!r} does not exist; wanted 'k1', 'k2' or 'k3'")


def exact_kl(logits: Float[Tensor, "*shape V"], ref_logits: Float[Tensor, "*shape V"]) -> Float[Tensor, "*shape"]:
    """KL(π_θ ‖ π_ref) = Σ_v π_θ(v) (log π_θ(v) − log π_ref(v)) over the full vocabulary, in nats."""
    logprobs = torch.log_softmax(logits, -1)
    difference = logprobs - torch.log_softmax(ref_logits, -1)
    return torch.where(logprobs > -torch.inf, logprobs.exp() * difference, 0.0).sum(-1)


@dataclass(frozen=True)
class AdaptiveKL:
    """Controller of β: raise it when the observed KL is above the target, lower it otherwise.

    e = clip(kl/target − 1, −clip, clip);   β ← β (1 + e·n/horizon)

    Args:
        target: wanted KL in nats per action token.
        horizon: sequences over which a full error would change β by about `clip`.

    Reference: Ziegler et al., arXiv:1909.08593, eq. 10. Differs: one update takes β to a hundredth at most, for
    with more sequences than a few horizons the law would turn it negative.
    """

    target: float
    horizon: float
    clip: float = 0.2

    def __post_init__(self) -> None:
        if not (self.target > 0 and self.horizon > 0):
            raise ConfigError(f"AdaptiveKL(target={self.target}, horizon={self.horizon}): both must be positive")

    def update(self, coef: float, kl: float, n: int) -> float:
        """The next coefficient. `kl`: mean per action token; `n`: sequences it was measured on. Pure."""
        if not isfinite(kl):
            return coef  # nothing was measured: every optimizer step was skipped
        error = min(max(kl / self.target - 1, -self.clip), self.clip)
        return coef * max(1 + error * n / self.horizon, 0.01)


@dataclass(frozen=True)
class KL:
    """Where and how the divergence from the reference enters.

    Args:
        coef: β, in reward (or loss) per nat.
        at: "reward": −β·k per token is added to the reward, computed once from π_old, as PPO does; its policy
            gradient with k1 is −β∇KL(π_θ ‖ π_ref). "loss": +β·k is differentiated itself, as GRPO does; then k2
            gives β∇KL(π_θ ‖ π_ref) on policy and k3 gives β∇KL(π_ref ‖ π_θ).
        estimator: left out, k1 at the reward and k3 at the loss.
        adaptive: controller of β between steps.
    """

    coef: float
    at: Literal["reward", "loss"] = "reward"
    estimator: Estimator = None  # pyright: ignore[reportAssignmentType]  # filled below, never None after
    adaptive: AdaptiveKL | None = None

    def __post_init__(self) -> None:
        if self.at not in ("reward", "loss"):
            raise ConfigError(f"KL(at={self.at!r}): wanted 'reward' or 'loss'")
        if self.estimator is None:
            object.__setattr__(self, "estimator", "k1" if self.at == "reward" else "k3")
        if self.estimator not in ("k1", "k2", "k3"):
            raise ConfigError(f"KL(estimator={self.estimator!r}): wanted 'k1', 'k2' or 'k3'")
        if self.at == "loss" and self.estimator == "k1":
            raise ConfigError(
                "KL(at='loss', estimator='k1') has a zero expected gradient on policy: E[∇ log π_θ] = 0. "
                "Fix: estimator='k2' or 'k3', or at='reward'"
            )
        if self.coef < 0:
            raise ConfigError(f"KL(coef={self.coef}) would reward divergence; wanted 0 or more")

    def adapted(self, kl: float, n: int) -> "KL":
        """With the coefficient for the next step."""
        return self if self.adaptive is None else replace(self, coef=self.adaptive.update(self.coef, kl, n))

    @property
    def formula(self) -> str:
        estimate = {"k1": "x", "k2": "x²/2", "k3": "(e⁻ˣ − 1 + x)"}[self.estimator]
        place = {
            "reward": f"rₜ ← rₜ − {self.coef:g}·{estimate},  x = log π_old(aₜ|sₜ) − log π_ref(aₜ|sₜ)",
            "loss": f"+ {self.coef:g}·{estimate},  x = log π_θ(aₜ|sₜ) − log π_ref(aₜ|sₜ)",
        }[self.at]
        if self.adaptive is None:
            return f"{place}  [{self.estimator}]"
        a = self.adaptive
        return f"{place}  [{self.estimator}; β adapts to {a.target:g} nats per token over {a.horizon:g} sequences]"
