"""Which tokens of a packed sequence see which."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor


class Segmentation(NamedTuple):
    """What the rule reads of each token of a packed sequence."""

    segment: Int[Tensor, " N"]
    prefix: Int[Tensor, " N"]
    """The segment that its own one continues; −1: none."""
    position: Int[Tensor, " N"]
    """In its row."""


def sees(tokens: Segmentation, query: Tensor, key: Tensor, window: int | None) -> Tensor:
    """Whether the tokens at `query` see those at `key`: up to themselves in their own segment and the prefix before it.

    Indices into the packed sequence, of any shapes that broadcast; the rule is a boolean of that shape.
    """
    segment, prefix, position = tokens
    near = (segment[query] == segment[key]) | (prefix[query] == segment[key])
    seen = near & (position[query] >= position[key])
    return seen if window is None else seen & (position[query] - position[key] < window)
