"""What stands between a Llama's matrix products, each with a backward pass of its own.

Autograd would write and read a tensor of all tokens for every `*` and `+`; on a CPU these cost as much time as half of
the matrix products. Here each function goes over its data as few times as it can, and keeps only what the products
beside it keep anyway. Without gradients the plain functions run, since decoding feels the cost of a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from oneloop.forward.projection import Adapter, Projection


def _scale(x: Tensor, eps: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()


def _normed(x: Tensor, eps: Tensor, gain: Tensor | None) -> Tensor:
    out = x * _scale(x, eps)
    return out if gain is None else out.mul_(gain)


class _Normed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: Tensor, gain: Tensor) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, scale, gain)
        return (x * scale).mul_(gain)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor | None]:
        (g,), (x, scale, gain) = gradients, ctx.saved_tensors
        along = g * (x * scale)
        d_gain = along.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        mean = (along @ gain)[..., None].div_(x.shape[-1])
        # dx = s (g·γ − x̂ · mean(g·γ·x̂)),  x̂ = s x
        return torch.addcmul(g * gain, x, mean.mul_(scale), value=-1).mul_(scale), None, d_gain


def normed(
    x: Float[Tensor, "... H"], eps: Float[Tensor, ""], gain: Float[Tensor, "... H"] | None
) -> Float[Tensor, "... H"]:
    """γ · x / √(mean(x²) + ε): the root-mean-square norm (Zhang & Sennrich 2019, eq. 4).

    Without gradients, γ can be missing, or one of its own for each head; with them it is [H].
    """
    if gain is None or not torch.is_grad_enabled():
        return _normed(x, eps, gain)
    return _Normed.apply(x, eps, gain)  # pyright: ignore[reportReturnType]


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate).mul_(up)


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _gated(gate, up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (g,), (gate, up) = gradients, ctx.saved_tensors
        of_gate = g * up
        torch.ops.aten.silu_backward.grad_input(of_gate, gate, grad_input=of_gate)
        return of_gate, F.silu(gate).mul_(g)


def gated(gate: Float[Tensor, "... I"], up: Float[Tensor, "... I"]) -> Float[Tensor, "... I"]:
    """silu(gate) · up (SwiGLU, Shazeer 2020)."""
    return _Gated.apply(gate, up) if torch.is_grad_enabled() else _gated(gate, up)  # pyright: ignore[reportReturnType]


class _Projected(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Any) -> tuple[Tensor, ...]:
        weights, biases = parameters[::2], parameters[1::2]
        ctx.save_for_backward(x, *weights)
        return tuple(F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        d_x = torch.mm(gradients[0], weights[0]) if ctx.needs_input_grad[0] else None
        for g, weight in zip(gradients[1:], weights[1:], strict=True):
            d_x = None if d_x is None else d_x.addmm_(g, weight)
        of_weights, of_biases = ctx.needs_input_grad[1::2], ctx.needs_input_grad[2::2]
        slopes: list[Tensor | None] = []
        for g, of_weight, of_bias in zip(gradients, of_weights, of_biases, strict=True):
            slopes += [torch.mm(g.t(), x) if of_weight else None, g.sum(0) if of_bias else None]
        return d_x, *slopes


def projected(x: Float[Tensor, "N H"], projections: Sequence[Projection]) -> tuple[Tensor, ...]:
    """x · Wᵀ + b by each projection, and its adapter's part; the gradients in x are added up inside the products."""
    if torch.is_grad_enabled():
        flat = (part for projection in projections for part in projection[:2])
        outs: tuple[Tensor, ...] = _Projected.apply(x, *flat)  # pyright: ignore[reportAssignmentType]
    else:
        outs = tuple(F.linear(x, projection.weight, projection.bias) for projection in projections)
    return adapted(outs, x, [projection.adapter for projection in projections])


def adapted(
    outs: tuple[Tensor, ...], x: Float[Tensor, "N H"], adapters: Sequence[Adapter | None]
) -> tuple[Tensor, ...]:
    """y + (α/r) · x · Aᵀ · Bᵀ, in place, for each projection of x that has an adapter; one product for all x · Aᵀ."""
    pairs = [(y, adapter) for y, adapter in zip(outs, adapters, strict=True) if adapter is not None]
    if pairs:
        low = F.linear(x, torch.cat([adapter.down for _, adapter in pairs]))
        parts = low.split([len(adapter.down) for _, adapter in pairs], 1)
        for (y, adapter), part in zip(pairs, parts, strict=True):
            y.addmm_(part, adapter.up.t(), alpha=adapter.scale)
    return outs


class _Rotary(Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(heads, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (g,), (cos, sin) = gradients, ctx.saved_tensors
        return _rotated(g, cos, sin, -1), None, None


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    out = heads * cos
    first, second = heads.chunk(2, -1)
    of_first, of_second = sin.chunk(2, -1)
    to_first, to_second = out.chunk(2, -1)
    to_first.addcmul_(second, of_first, value=-direction)
    to_second.addcmul_(first, of_second, value=direction)
    return out


def apply_rotary(
    heads: Float[Tensor, "... heads D"], cos: Float[Tensor, "... 1 D"], sin: Float[Tensor, "... 1 D"]
) -> Float[Tensor, "... heads D"]:
    """Rotary embedding: dimension d rotated with d + D/2 by the angle of its position (Su et al. 2021, eq. 34)."""
    return _Rotary.apply(heads, cos, sin) if torch.is_grad_enabled() else _rotated(heads, cos, sin, 1)
