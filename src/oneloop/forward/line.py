"""Who sees whom on a line of rows that stand end to end."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor


class Line(NamedTuple):
    """What the rule reads of each token."""

    segment: Int[Tensor, " N"]
    prompt: Int[Tensor, " N"]
    """The segment that its own one continues; −1: none."""
    position: Int[Tensor, " N"]


def sees(line: Line, query: Tensor, key: Tensor, window: int | None) -> Tensor:
    """Whether the tokens at `query` see those at `key`: up to themselves in their own segment and the prompt before it.

    Line positions of any shapes that broadcast; the rule is a boolean of that shape.
    """
    segment, prompt, position = line
    near = (segment[query] == segment[key]) | (prompt[query] == segment[key])
    seen = near & (position[query] >= position[key])
    return seen if window is None else seen & (position[query] - position[key] < window)
