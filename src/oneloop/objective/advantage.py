"""Advantage estimators: from rewards (and values) per token to the credit of each action.

All see action tokens only: masked slots are skipped, so padding, tool output and environment text neither carry
credit nor let it decay. A row with a reward that is not finite was not scored: it gets 0 and leaves every mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WHITEN_EPS = 1e-8
"""Added to the variance when whitening, as the peers do."""


class Credit(NamedTuple):
    """What an estimator gives; advantages are 0 on masked slots."""

    advantages: Float[Tensor, "B T"]
    returns: Float[Tensor, "B T"] | None
    """What the critic should learn, from the unwhitened advantages; None without a critic."""


@runtime_checkable
class AdvantageEstimator(Protocol):
    uses_values: bool
    compares: bool
    """Whether it needs several samples of one prompt."""

    def __call__(
        self,
        rewards: Float[Tensor, "B T"],
        values: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"],
        group: Int[Tensor, " B"],
        *,
        bootstrap: Float[Tensor, " B"] | None = None,
    ) -> Credit: ...


def whiten(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """(x − mean)/√(var + 1e-8) over the masked-in slots, ddof 0, in float64; 0 elsewhere, and for equal values."""
    chosen = values[mask].double()
    if chosen.numel() == 0 or bool((chosen == chosen[0]).all()):
        return torch.zeros_like(values)
    mean = chosen.mean()
    scaled = (chosen - mean) * (chosen.var(correction=0) + WHITEN_EPS).rsqrt()
    return torch.zeros_like(values).masked_scatter(mask, scaled.to(values.dtype))


def scored(rewards: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """The action tokens of rows whose rewards are all finite."""
    return mask & (rewards.isfinite() | ~mask).all(1, keepdim=True)


def row_rewards(rewards: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """R_i = Σ_t r_t over the row's actions, added up in float64: slots between them must not change the rounding."""
    return torch.where(mask, rewards, 0.0).sum(1, dtype=torch.float64).to(rewards.dtype)


def _discounted(rewards: Tensor, mask: Tensor, factor: float, start: Tensor) -> Tensor:
    """x_t = r_t + factor · x_(t+1), the sum over later actions; `start` stands after the last one."""
    out = torch.zeros_like(rewards)
    carry = start
    for t in range(rewards.shape[1] - 1, -1, -1):
        live = mask[:, t]
        carry = torch.where(live, rewards[:, t] + factor * carry, carry)
        out[:, t] = torch.where(live, carry, 0.0)
    return out


def _next_values(values: Tensor, mask: Tensor, bootstrap: Tensor) -> Tensor:
    """V of the state that the next action is chosen in; after the last action, `bootstrap`."""
    out = torch.zeros_like(values)
    carry = bootstrap
    for t in range(values.shape[1] - 1, -1, -1):
        live = mask[:, t]
        out[:, t] = torch.where(live, carry, 0.0)
        carry = torch.where(live, values[:, t], carry)
    return out


@dataclass(frozen=True)
class GAE:
    """Generalised advantage estimation: Â_t = δ_t + γλ Â_(t+1),  δ_t = r_t + γ V(s_(t+1)) − V(s_t).

    t counts action tokens only. Returns are Â_t + V(s_t), before whitening.

    Args:
        gamma: discount γ per action token.
        lam: λ; 1 gives R − V, 0 gives the one-step error.
        whiten: (Â − mean)/std over all action tokens of the batch.

    `bootstrap` is V after the last action of a truncated row and 0 for a terminated one (the caller zeroes it).

    Reference: arXiv:1506.02438, eq. 16.
    """

    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True

    uses_values = True
    compares = False

    def __call__(
        self,
        rewards: Float[Tensor, "B T"],
        values: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"],
        group: Int[Tensor, " B"],
        *,
        bootstrap: Float[Tensor, " B"] | None = None,
    ) -> Credit:
        if values is None:
            raise ValueError("GAE needs values; without a critic use GroupRelative, LeaveOneOut or NoBaseline")
        live = scored(rewards, mask)
        values = torch.where(live, values, 0.0)
        start = torch.zeros_like(values[:, 0]) if bootstrap is None else bootstrap.to(values.dtype)
        delta = torch.where(live, rewards, 0.0) + self.gamma * _next_values(values, live, start) - values
        advantages = _discounted(delta, live, self.gamma * self.lam, torch.zeros_like(start))
        returns = torch.where(live, advantages + values, 0.0)
        return Credit(whiten(advantages, live) if self.whiten else advantages, returns)

    @property
    def formula(self) -> str:
        tail = "; whitened over the batch (ddof 0, ε 1e-8 on the variance)" if self.whiten else ""
        return f"Âₜ = Σₖ ({self.gamma:g}·{self.lam:g})ᵏ δₜ₊ₖ,  δₜ = rₜ + {self.gamma:g}·V(sₜ₊₁) − V(sₜ){tail}"


@dataclass(frozen=True)
class GroupRelative:
    """Â_i = (R_i − mean R)/(std R + ε) within the group, the same for all tokens of the response.

    Args:
        scale: "std", or "none" for the mean alone (Dr. GRPO).
        ddof: 0 divides by G, 1 by G − 1.
        eps: ε added to the std.

    Ties and groups of one give exactly 0.

    Reference: GRPO, arXiv:2402.03300, section 4.1.2; without std, arXiv:2503.20783. Differs: several libraries use
    ddof 1 with ε between 1e-4 and 1e-9.
    """

    scale: Literal["std", "none"] = "std"
    ddof: int = 0
    eps: float = 1e-6

    uses_values = False
    compares = True

    def __post_init__(self) -> None:
        if self.scale not in ("std", "none"):
            raise ValueError(f"GroupRelative(scale={self.scale!r}): wanted 'std' or 'none'")

    def __call__(
        self,
        rewards: Float[Tensor, "B T"],
        values: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"],
        group: Int[Tensor, " B"],
        *,
        bootstrap: Float[Tensor, " B"] | None = None,
    ) -> Credit:
        def scaled(error: Tensor, count: Tensor, squares: Tensor) -> Tensor:
            return error if self.scale == "none" else error / ((squares / (count - self.ddof)).sqrt() + self.eps)

        return _by_group(rewards, mask, group, scaled)

    @property
    def formula(self) -> str:
        if self.scale == "none":
            return "Âᵢ = Rᵢ − mean(R)  (over the group; no std)"
        return f"Âᵢ = (Rᵢ − mean(R))/(std(R) + {self.eps:g})  (over the group, ddof {self.ddof})"


@dataclass(frozen=True)
class LeaveOneOut:
    """RLOO: Â_i = R_i − 1/(G−1) Σ_(j≠i) R_j, an unbiased baseline; a group of one gives 0.

    Reference: arXiv:2402.14740, section 3.
    """

    uses_values = False
    compares = True

    def __call__(
        self,
        rewards: Float[Tensor, "B T"],
        values: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"],
        group: Int[Tensor, " B"],
        *,
        bootstrap: Float[Tensor, " B"] | None = None,
    ) -> Credit:
        # R_i − (S − R_i)/(G − 1) = (R_i − mean) · G/(G − 1)
        return _by_group(rewards, mask, group, lambda error, count, squares: error * count / (count - 1))

    @property
    def formula(self) -> str:
        return "Âᵢ = Rᵢ − 1/(G−1) · Σ_{j≠i} Rⱼ"


Scaled = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of each row's Rᵢ − mean R, its group's size, and its group's Σⱼ (Rⱼ − mean R)², in float64."""


def _by_group(rewards: Tensor, mask: Tensor, group: Tensor, scaled: Scaled) -> Credit:
    """`scaled`, at the actions of each row.

    Equal rewards give exactly 0: a residue of rounding divided by a tiny std must not become an advantage.
    """
    live = scored(rewards, mask)
    rows = live.any(1).nonzero()[:, 0]
    total = row_rewards(rewards, live).double()[rows]
    names, number = group[rows].unique(return_inverse=True)

    def over_group(values: Tensor, how: str) -> Tensor:
        start = values.new_zeros(len(names))
        return start.scatter_reduce(0, number, values, how, include_self=False)[number]

    error = total - over_group(total, "mean")
    count = over_group(torch.ones_like(total), "sum")
    advantages = scaled(error, count, over_group(error.square(), "sum"))
    differ = over_group(total, "amax") > over_group(total, "amin")
    credit = torch.zeros(len(mask), dtype=total.dtype, device=total.device)
    credit[rows] = torch.where(differ, advantages, 0.0)
    return Credit(torch.where(live, credit[:, None].to(rewards.dtype), 0.0), None)


@dataclass(frozen=True)
class BatchWhitened:
    """REINFORCE++: returns over action tokens, whitened over the batch (ddof 0).

    Â_t = (G_t − mean G)/√(var G + 1e-8),  G_t = Σ_(k≥t) γ^(k−t) r_k

    Reference: arXiv:2501.03262, eq. 7.
    """

    gamma: float = 1.0

    uses_values = False
    compares = False

    def __call__(
        self,
        rewards: Float[Tensor, "B T"],
        values: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"],
        group: Int[Tensor, " B"],
        *,
        bootstrap: Float[Tensor, " B"] | None = None,
    ) -> Credit:
        live = scored(rewards, mask)
        returns = _discounted(torch.where(live, rewards, 0.0), live, self.gamma, torch.zeros_like(rewards[:, 0]))
        return Credit(whiten(returns, live), None)

    @property
    def formula(self) -> str:
        return f"Âₜ = whiten(Σ_{{k≥t}} {self.gamma:g}^(k−t)·rₖ)  (over the batch, ddof 0, ε 1e-8 on the variance)"


@dataclass(frozen=True)
class NoBaseline:
    """Reward-to-go: Â_t = Σ_(k≥t) γ^(k−t) r_k. With reward 1 at the end and γ = 1 this is 1 everywhere: SFT.

    Args:
        gamma: γ per action token; 0 leaves each action its own reward, as distillation does.
    """

    gamma: float = 1.0

    uses_values = False
    compares = False

    def __call__(
        self,
        rewards: Float[Tensor, "B T"],
        values: Float[Tensor, "B T"] | None,
        mask: Bool[Tensor, "B T"],
        group: Int[Tensor, " B"],
        *,
        bootstrap: Float[Tensor, " B"] | None = None,
    ) -> Credit:
        live = scored(rewards, mask)
        start = torch.zeros_like(rewards[:, 0])
        return Credit(_discounted(torch.where(live, rewards, 0.0), live, self.gamma, start), None)

    @property
    def formula(self) -> str:
        if self.gamma == 0:
            return "Âₜ = rₜ  (each action its own reward, no baseline)"
        factor = "" if self.gamma == 1 else f"{self.gamma:g}^(k−t)·"
        return f"Âₜ = Σ_{{k≥t}} {factor}rₖ  (reward to go, no baseline)"
