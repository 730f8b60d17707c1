"""Which groups are kept, and which rows are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

GroupRewards = Sequence[float | None] | Float[Tensor, " G"]
"""One per answer; None, or a number that is not finite, where it could not be scored."""


@runtime_checkable
class GroupFilter(Protocol):
    """Keep this group?"""

    def __call__(self, rewards: GroupRewards) -> bool: ...


@dataclass(frozen=True)
class MixedOutcome:
    """Dynamic sampling: keep a group only if its rewards differ, for equal ones have no group advantage.

    Rewards that could not be scored (None, or not finite) do not count.

    Reference: DAPO, arXiv:2503.14476, eq. 11: 0 < |{correct}| < G. Differs: any reward scale.
    """

    def __call__(self, rewards: GroupRewards) -> bool:
        scored = [float(reward) for reward in rewards if reward is not None and isfinite(reward)]
        return len(scored) > 1 and max(scored) > min(scored)

    @property
    def formula(self) -> str:
        return "keep a group only if max R > min R; refill dropped groups (dynamic sampling)"


@dataclass(frozen=True)
class OverlongFilter:
    """Overlong filtering: truncated responses give no loss. They still count in their group's baseline.

    Reference: DAPO, arXiv:2503.14476, section 3.4.
    """

    def __call__(self, mask: Bool[Tensor, "B T"], truncated: Bool[Tensor, " B"]) -> Bool[Tensor, "B T"]:
        return mask & ~truncated[:, None]

    @property
    def formula(self) -> str:
        return "no loss on truncated responses (overlong filtering)"
