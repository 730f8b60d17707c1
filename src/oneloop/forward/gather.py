"""Parts of a packed sequence, and back: what attention over many short segments costs beside its products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

Index = slice | Int[Tensor, " _"]
"""Which tokens of the packed sequence a part has, in its order."""


class _Gathered(Function):
    @staticmethod
    def forward(ctx: Any, sequence: Tensor, *indices: Index) -> tuple[Tensor, ...]:
        ctx.indices, ctx.shape = indices, sequence.shape
        return _gathered(sequence, indices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        total = gradients[0].new_zeros(ctx.shape)
        for index, gradient in zip(ctx.indices, gradients, strict=True):
            if isinstance(index, slice):
                total[index] += gradient
            else:
                total.index_add_(0, index, gradient)
        return total, *(None for _ in ctx.indices)


def _gathered(sequence: Tensor, indices: Sequence[Index]) -> tuple[Tensor, ...]:
    return tuple(sequence[index] if isinstance(index, slice) else sequence.index_select(0, index) for index in indices)


def gathered(sequence: Float[Tensor, "N heads D"], indices: Sequence[Index]) -> tuple[Float[Tensor, "_ heads D"], ...]:
    """The parts. Their gradients go into one tensor of the sequence's size; autograd would make one for each part."""
    return _Gathered.apply(sequence, *indices) if sequence.requires_grad else _gathered(sequence, indices)  # pyright: ignore[reportReturnType]
