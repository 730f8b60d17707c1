"""Preference pairs: what reward a row implies, and which function of the margin is minimised."""

from dataclasses import dataclass
from math import exp
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from oneloop.batch import Batch, PolicyOutput
from oneloop.errors import ConfigError
from oneloop.objective.surrogate import LOG_RATIO_BOUND


@runtime_checkable
class PairReward(Protocol):
    """A reward per row, differentiable."""

    @property
    def beta(self) -> float: ...

    @property
    def uses_reference(self) -> bool:
        """Whether it reads log π_ref."""
        ...

    def __call__(self, out: PolicyOutput, batch: Batch) -> Float[Tensor, " B"]: ...


@runtime_checkable
class Link(Protocol):
    """Loss of a margin r(y_w) − r(y_l)."""

    def __call__(self, margin: Float[Tensor, " P"], beta: float) -> Float[Tensor, " P"]: ...


@dataclass(frozen=True)
class ImplicitReward:
    """The reward whose optimal policy π_θ is: r(x, y) = β Σ_t (log π_θ − log π_ref).

    Args:
        beta: temperature of the KL constraint.
        length_normalized: divide by the row's own number of actions.
        reference: False deletes log π_ref; with `length_normalized` that is SimPO's reward β/|y| · log π_θ(y|x).

    A row without an action has reward 0.

    Reference: DPO, arXiv:2305.18290, eq. 5 (the term in Z(x) cancels in a margin); SimPO, arXiv:2405.14734, eq. 4.
    """

    beta: float = 0.1
    length_normalized: bool = False
    reference: bool = True

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ConfigError(f"ImplicitReward(beta={self.beta}): β must be positive, or no pair has a gradient")

    @property
    def uses_reference(self) -> bool:
        return self.reference

    def __call__(self, out: PolicyOutput, batch: Batch) -> Float[Tensor, " B"]:
        logprobs = torch.where(batch.mask, out.logprobs, 0.0)
        if self.reference:
            if batch.ref_logprobs is None:
                raise ValueError("ImplicitReward needs batch.ref_logprobs; call algorithm.prepare(batch, models) first")
            logprobs = logprobs - torch.where(batch.mask, batch.ref_logprobs, 0.0)
        total = logprobs.sum(1)
        return self.beta * (total / batch.mask.sum(1).clamp(min=1) if self.length_normalized else total)

    @property
    def formula(self) -> str:
        mean = "1/|y| · " if self.length_normalized else ""
        if not self.reference:
            return f"r(x,y) = {self.beta:g} · {mean}Σₜ log π_θ(yₜ|x,y₍<ₜ₎)"
        return f"r(x,y) = {self.beta:g} · {mean}Σₜ (log π_θ(yₜ|x,y₍<ₜ₎) − log π_ref(yₜ|x,y₍<ₜ₎))"


def mean_logprobs(out: PolicyOutput, batch: Batch) -> Float[Tensor, " B"]:
    """1/|y| Σ_t log π_θ over each row's actions; 0 for a row without any."""
    return torch.where(batch.mask, out.logprobs, 0.0).sum(1) / batch.mask.sum(1).clamp(min=1)


@dataclass(frozen=True)
class LogOdds:
    """ORPO: how much likelier a row is than anything else, r(x, y) = log P/(1 − P), P = exp(1/|y| Σ_t log π_θ).

    r is cut at 20 nats, where P is 1 to nine digits and its slope 1/(1 − P) would overflow; no gradient beyond.

    Reference: arXiv:2403.07691, eq. 3–4.
    """

    beta = 1.0
    uses_reference = False

    def __call__(self, out: PolicyOutput, batch: Batch) -> Float[Tensor, " B"]:
        mean = mean_logprobs(out, batch).clamp(max=-LEAST_SURPRISE)
        return mean - torch.log(-torch.expm1(mean))

    @property
    def formula(self) -> str:
        return "r(x,y) = log(P/(1 − P)),  P = exp(1/|y| · Σₜ log π_θ(yₜ|x,y₍<ₜ₎))"


LEAST_SURPRISE = exp(-LOG_RATIO_BOUND)
"""−log P at which the log odds reach the bound of log-ratios."""


@dataclass(frozen=True)
class RewardHead:
    """A reward model's own score, read after the last token."""

    beta = 1.0
    uses_reference = False

    def __call__(self, out: PolicyOutput, batch: Batch) -> Float[Tensor, " B"]:
        if out.scores is None:
            raise ValueError("RewardHead needs PolicyOutput.scores: the policy must be a reward model")
        return out.scores

    @property
    def formula(self) -> str:
        return "r(x,y) = score head after the last token"


@dataclass(frozen=True)
class LogSigmoid:
    """Bradley–Terry: −(1−s)·log σ(m − γ) − s·log σ(γ − m), m the margin.

    Args:
        label_smoothing: s, the share of labels assumed wrong.
        margin: γ, how far the better answer should lead.

    Reference: DPO arXiv:2305.18290 eq. 7; smoothing: Mitchell 2023, "A note on DPO with noisy preferences" (cDPO);
    γ: SimPO, arXiv:2405.14734, eq. 5–6.
    """

    label_smoothing: float = 0.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"LogSigmoid(label_smoothing={self.label_smoothing}): wanted 0 ≤ s < 0.5, "
                "for at 0.5 the labels say nothing"
            )

    def __call__(self, margin: Float[Tensor, " P"], beta: float) -> Float[Tensor, " P"]:
        s, lead = self.label_smoothing, margin - self.margin
        return -(1 - s) * F.logsigmoid(lead) - s * F.logsigmoid(-lead)

    @property
    def formula(self) -> str:
        s, shift = self.label_smoothing, f" − {self.margin:g}" if self.margin else ""
        back = f" + {self.margin:g}" if self.margin else ""
        first = f"log σ(r_w − r_l{shift})"
        return f"−{first}" if s == 0 else f"−{1 - s:g}·{first} − {s:g}·log σ(r_l − r_w{back})"


@dataclass(frozen=True)
class SquaredMargin:
    """IPO: (m/β − 1/(2β))² on summed log-ratios, so that no label pulls the margin to infinity.

    Reference: arXiv:2310.12036, eq. 17 (its τ is β here).
    """

    def __call__(self, margin: Float[Tensor, " P"], beta: float) -> Float[Tensor, " P"]:
        return (margin / beta - 1 / (2 * beta)).square()

    @property
    def formula(self) -> str:
        return "((r_w − r_l)/β − 1/(2β))²"


@dataclass(frozen=True)
class Hinge:
    """max(0, 1 − m).

    Reference: SLiC, arXiv:2305.10425, as used on DPO's margin by arXiv:2309.06657.
    """

    def __call__(self, margin: Float[Tensor, " P"], beta: float) -> Float[Tensor, " P"]:
        return F.relu(1 - margin)

    @property
    def formula(self) -> str:
        return "max(0, 1 − (r_w − r_l))"


def pairs(group: Int[Tensor, " B"], labels: Float[Tensor, " B"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Row numbers of the preferred and of the other answer of each pair.

    Raises: ValueError when a group is not two rows with different labels.
    """
    order = torch.argsort(group, stable=True)
    numbers = group[order]
    whole = len(order) % 2 == 0 and bool((numbers[::2] == numbers[1::2]).all())
    if not whole or bool((numbers[1:-1:2] == numbers[2::2]).any()):
        sizes = torch.unique(group, return_counts=True)
        odd = int(sizes[0][sizes[1] != 2][0])
        raise ValueError(f"group {odd} has {int((group == odd).sum())} rows; a preference needs exactly two")
    first, second = order[::2], order[1::2]
    if bool((labels[first] == labels[second]).any()):
        tie = int(group[first][labels[first] == labels[second]][0])
        raise ValueError(f"group {tie} has two equal rewards; a preference needs a better and a worse row")
    better = labels[first] > labels[second]
    return torch.where(better, first, second), torch.where(better, second, first)
