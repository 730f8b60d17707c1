"""What stands between a Llama's matrix products, each with a backward pass of its own.

Autograd would write and read a tensor of all tokens for every `*` and `+`; on a CPU these cost as much time as half of
the matrix products. Here each function goes over its data as few times as it can, and keeps only what the products
beside it keep anyway. Without gradients the plain functions run, since decoding feels the cost of a call.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F


def _normed(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    scale = mean.add_(eps).rsqrt_()
    return x * scale, scale


class _Normed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        out, scale = _normed(x, eps)
        ctx.save_for_backward(out, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        out, scale = ctx.saved_tensors
        (g,) = gradients
        mean = (g * out).mean(-1, keepdim=True)
        return torch.addcmul(g, out, mean, value=-1).mul_(scale), None


def normed(x: Float[Tensor, "... H"], eps: float) -> Float[Tensor, "... H"]:
    """x / √(mean(x²) + ε): the root-mean-square norm without its gain (Zhang & Sennrich 2019, eq. 4)."""
    return _Normed.apply(x, eps) if torch.is_grad_enabled() else _normed(x, eps)[0]


def _gated(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return _gated(gate_up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        (g,) = gradients
        gate, up = gate_up.chunk(2, -1)
        both = torch.empty_like(gate_up)
        of_gate, of_up = both.chunk(2, -1)
        torch.mul(g, F.silu(gate), out=of_up)
        torch.ops.aten.silu_backward.grad_input(g * up, gate, grad_input=of_gate)
        return both


def gated(gate_up: Float[Tensor, "... both"]) -> Float[Tensor, "... I"]:
    """silu(gate) · up (SwiGLU, Shazeer 2020), of both projections side by side."""
    return _Gated.apply(gate_up) if torch.is_grad_enabled() else _gated(gate_up)


class _Turned(Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(heads, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (g,), (cos, sin) = gradients, ctx.saved_tensors
        return _turned(g, cos, sin, -1), None, None


def _turned(heads: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    half = heads.shape[-1] // 2
    out = heads * cos
    out[..., :half].addcmul_(heads[..., half:], sin[..., :half], value=-direction)
    out[..., half:].addcmul_(heads[..., :half], sin[..., half:], value=direction)
    return out


def turned(
    heads: Float[Tensor, "... heads D"], cos: Float[Tensor, "... 1 D"], sin: Float[Tensor, "... 1 D"]
) -> Float[Tensor, "... heads D"]:
    """Rotary positions: dimension d turned with d + D/2 by the angle of its position (Su et al. 2021, eq. 34)."""
    return _Turned.apply(heads, cos, sin) if torch.is_grad_enabled() else _turned(heads, cos, sin, 1)
