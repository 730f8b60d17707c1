"""Rewards before they become advantages."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oneloop.errors import ConfigError


@runtime_checkable
class RewardShaping(Protocol):
    """Changes the rewards of whole responses."""

    def __call__(self, rewards: Float[Tensor, " B"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]: ...


@dataclass(frozen=True)
class OverlongPenalty:
    """Soft overlong punishment: 0 up to max_length − margin, then linear, −1 at and beyond max_length.

    R_length(y) = 0                                    |y| ≤ L_max − L_cache
                  ((L_max − L_cache) − |y|)/L_cache    in between
                  −1                                   |y| ≥ L_max

    Args:
        max_length: L_max, in action tokens.
        margin: L_cache, in action tokens.

    Reference: DAPO, arXiv:2503.14476, eq. 13.
    """

    max_length: int
    margin: int

    def __post_init__(self) -> None:
        if not 0 < self.margin <= self.max_length:
            raise ConfigError(
                f"OverlongPenalty(max_length={self.max_length}, margin={self.margin}): wanted 0 < margin ≤ max_length"
            )

    def __call__(self, rewards: Float[Tensor, " B"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        over = (self.max_length - self.margin - lengths) / self.margin
        return rewards + over.clamp(-1.0, 0.0).to(rewards.dtype)

    @property
    def formula(self) -> str:
        return f"R ← R + clip(({self.max_length - self.margin} − |y|)/{self.margin}, −1, 0)  (soft overlong punishment)"


def last_action(mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """True at the last action of each row (nowhere in a row without actions): where a response's reward stands."""
    position = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    place = mask * position
    return mask & (place == place.amax(1, keepdim=True))
