"""Pieces of a line, and back: what attention over many short segments costs beside its products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

Places = slice | Int[Tensor, " _"]
"""Which tokens of the line a piece has, in its order."""


class _Gathered(Function):
    @staticmethod
    def forward(ctx: Any, line: Tensor, *places: Places) -> tuple[Tensor, ...]:
        ctx.places, ctx.shape = places, line.shape
        return _gathered(line, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        total = gradients[0].new_zeros(ctx.shape)
        for place, gradient in zip(ctx.places, gradients, strict=True):
            if isinstance(place, slice):
                total[place] += gradient
            else:
                total.index_add_(0, place, gradient)
        return total, *(None for _ in ctx.places)


def _gathered(line: Tensor, places: Sequence[Places]) -> tuple[Tensor, ...]:
    return tuple(line[place] if isinstance(place, slice) else line.index_select(0, place) for place in places)


def gathered(line: Float[Tensor, "N heads D"], places: Sequence[Places]) -> tuple[Float[Tensor, "_ heads D"], ...]:
    """The pieces. Their gradients go into one tensor of the line's size; autograd would make one for each piece."""
    return _Gathered.apply(line, *places) if line.requires_grad else _gathered(line, places)  # pyright: ignore[reportReturnType]
