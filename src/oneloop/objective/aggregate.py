"""Aggregation as weights: loss = Σ w·ℓ.

`size` counts the whole optimizer step over all ranks, so that micro-batching, packing, padding, row order and
sharding cannot change the gradient: a sum of pieces needs no further division.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oneloop.batch import Size


@runtime_checkable
class Aggregate(Protocol):
    """Weights of a mean over tokens; 0 on masked slots."""

    def __call__(self, mask: Bool[Tensor, "B T"], size: Size) -> Float[Tensor, "B T"]: ...


def _weights(mask: Tensor, divisor: Tensor | float) -> Tensor:
    """1/divisor on actions. A step without actions has no loss to divide: its weights are all 0."""
    return mask.to(torch.float32) * (1.0 / divisor)


@dataclass(frozen=True)
class TokenMean:
    """Every action token of the step weighs the same: w = 1 / Σ_i |o_i|.

    Reference: DAPO, arXiv:2503.14476, eq. 8.
    """

    def __call__(self, mask: Bool[Tensor, "B T"], size: Size) -> Float[Tensor, "B T"]:
        return _weights(mask, float(max(size.tokens, 1)))

    @property
    def formula(self) -> str:
        return "1/Σᵢ|oᵢ| · Σᵢ Σₜ ℓᵢₜ  (tokens of the whole step)"


@dataclass(frozen=True)
class SequenceMean:
    """Every response weighs the same, whatever its length: w = 1 / (N·|o_i|), N sequences.

    Reference: GRPO, arXiv:2402.03300, eq. 3. Long wrong answers are punished less per token: the length bias that
    Dr. GRPO removes.
    """

    def __call__(self, mask: Bool[Tensor, "B T"], size: Size) -> Float[Tensor, "B T"]:
        lengths = mask.sum(1, keepdim=True).clamp(min=1)
        return _weights(mask, (lengths * max(size.sequences, 1)).float())

    @property
    def formula(self) -> str:
        return "1/N · Σᵢ 1/|oᵢ| · Σₜ ℓᵢₜ  (N sequences of the whole step)"


@dataclass(frozen=True)
class FixedLength:
    """A constant instead of the length: w = 1 / (N·L).

    Reference: Dr. GRPO, arXiv:2503.20783, section 3.2. `tokens` is L, the generation budget; it must not depend on
    the batch, or the bias returns.
    """

    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"FixedLength(tokens={self.tokens}): wanted the length limit of a completion, at least 1")

    def __call__(self, mask: Bool[Tensor, "B T"], size: Size) -> Float[Tensor, "B T"]:
        return _weights(mask, float(max(size.sequences, 1) * self.tokens))

    @property
    def formula(self) -> str:
        return f"1/(N·{self.tokens}) · Σᵢ Σₜ ℓᵢₜ  (N sequences of the whole step, constant length {self.tokens})"
