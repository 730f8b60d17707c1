"""A small Llama-like backbone with fewer and larger operations, for a CPU, where all but the products is overhead.

Queries, keys and values come from one product, gate and up from another, norms' gains are part of the matrix that
follows them, residuals are added by the product. The mathematics is the model's own and is compared with it once, with
its gradient; the matrices are put together anew from the model's weights whenever these may have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from oneloop.model.attention import Heads, Layout, evaluating, hidden_states
from oneloop.model.pointwise import gated, normed, turned
from oneloop.model.probe import probe_line

MOST_BYTES = 256 * 2**20
"""Largest backbone that is put together: a larger one gains little, and its copy would be felt."""
ACTIVATIONS = (nn.SiLU, SiLUActivation)
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}

Backbone = Callable[[Tensor, Tensor, Layout], Tensor]
"""Token ids [R, N], positions [R, N] and a layout to last hidden states [R, N, H]."""


class _Linear(NamedTuple):
    matrix: Float[Tensor, "in out"]
    bias: Float[Tensor, " out"] | None


class _Layer(NamedTuple):
    qkv: _Linear
    out: _Linear
    gate_up: _Linear
    down: _Linear
    query_gain: Tensor | None
    key_gain: Tensor | None

    def laid_out(self) -> _Layer:
        qkv, out, gate_up, down = (x._replace(matrix=x.matrix.contiguous()) for x in self[:4])
        return self._replace(qkv=qkv, out=out, gate_up=gate_up, down=down)


class Setting(NamedTuple):
    """What a layer's attention wants beside its weights."""

    scale: float | None
    window: int | None


class Fused:
    """A backbone as `Backbone`, from the weights that `model` has now and what `settings_of` found out about it.

    Args:
        few_rows: for many calls with tens of tokens rather than thousands: matrices are copied as `for_few_rows` does.
    """

    def __init__(self, model: PreTrainedModel, settings: Sequence[Setting], *, few_rows: bool = False) -> None:
        backbone: Any = model.base_model
        self._embedding, self._rotary = backbone.embed_tokens, backbone.rotary_emb
        merged = map(_merged, backbone.layers)
        self._layers = [layer.laid_out() for layer in merged] if few_rows else list(merged)
        self._settings = settings
        self._gain, self._eps = backbone.norm.weight, _eps(backbone.norm)
        self._width: int = backbone.layers[0].self_attn.head_dim

    def __call__(
        self, tokens: Int[Tensor, "R N"], positions: Int[Tensor, "R N"], layout: Layout
    ) -> Float[Tensor, "R N H"]:
        x = self._embedding(tokens)
        cos, sin = self._rotary(x, position_ids=positions)
        turn = (cos[:, :, None].expand(*tokens.shape, 1, -1), sin[:, :, None].expand(*tokens.shape, 1, -1))
        x = x.flatten(0, 1)
        for number, layer in enumerate(self._layers):
            heads = self._heads(number, layer, _product(normed(x, self._eps), layer.qkv), turn, tokens.shape)
            x = _added(x, layout.attend(heads).reshape(len(x), -1), layer.out)
            x = _added(x, gated(_product(normed(x, self._eps), layer.gate_up)), layer.down)
        return (normed(x, self._eps) * self._gain).view(*tokens.shape, -1)

    def _heads(self, number: int, layer: _Layer, qkv: Tensor, turn: tuple[Tensor, Tensor], shape: torch.Size) -> Heads:
        heads = qkv.view(*shape, -1, self._width)
        keys = (layer.qkv.matrix.shape[1] - layer.out.matrix.shape[0]) // (2 * self._width)
        moved, value = heads.split([heads.shape[2] - keys, keys], 2)  # its backward is one copy; that of slices is not
        queries = moved.shape[2] - keys
        if layer.query_gain is not None and layer.key_gain is not None:
            gains = torch.cat([layer.query_gain.expand(queries, -1), layer.key_gain.expand(keys, -1)])
            moved = normed(moved, self._eps) * gains
        query, key = turned(moved, *turn).split([queries, keys], 2)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return Heads(number, query, key, value, *self._settings[number])


def _merged(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    query_gain, key_gain = (None if norm is None else norm.weight for norm in norms)
    return _Layer(
        qkv=_stacked([attention.q_proj, attention.k_proj, attention.v_proj], layer.input_layernorm.weight),
        out=_Linear(attention.o_proj.weight.t(), attention.o_proj.bias),
        gate_up=_stacked([mlp.gate_proj, mlp.up_proj], layer.post_attention_layernorm.weight),
        down=_Linear(mlp.down_proj.weight.t(), mlp.down_proj.bias),
        query_gain=query_gain,
        key_gain=key_gain,
    )


def _stacked(linears: list[nn.Linear], gain: Tensor) -> _Linear:
    bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
    return _Linear((torch.cat([linear.weight for linear in linears]) * gain).t(), bias)


def _product(x: Tensor, linear: _Linear) -> Tensor:
    return torch.mm(x, linear.matrix) if linear.bias is None else torch.addmm(linear.bias, x, linear.matrix)


def _added(x: Tensor, y: Tensor, linear: _Linear) -> Tensor:
    return torch.addmm(x if linear.bias is None else x + linear.bias, y, linear.matrix)


def for_few_rows(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The product of a few rows with `linear`, from a copy laid out as [in, out].

    With 64 rows it runs at 124 GFLOP/s where [out, in], the order that modules keep, allows 93 (MKL, one thread).
    """
    return partial(_product, linear=_Linear(linear.weight.t().contiguous(), linear.bias))


def _eps(norm: Any) -> float:
    return norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps


def _shaped(model: PreTrainedModel) -> bool:
    """Whether the backbone has the parts of a Llama and no others."""
    backbone: Any = model.base_model
    if {name for name, _ in backbone.named_children()} != {"embed_tokens", "layers", "norm", "rotary_emb"}:
        return False
    return all(
        {name for name, _ in layer.named_children()} == LAYER
        and {name for name, _ in layer.self_attn.named_children()} - {"q_norm", "k_norm"} == ATTENTION
        and {name for name, _ in layer.mlp.named_children()} == MLP
        and isinstance(layer.mlp.act_fn, ACTIVATIONS)
        and _bare(layer)
        for layer in backbone.layers
    )


def _bare(layer: nn.Module) -> bool:
    """No hook and no adapter around a projection: `Fused` reads weights, and would pass them by."""
    inner = layer.modules()
    linears = [module for name, module in layer.named_modules() if name.endswith("_proj")]
    return all(type(linear) is nn.Linear for linear in linears) and not any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in inner
    )


class _Watched:
    """A layout that notes each layer's setting."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.settings: list[Setting] = []

    def attend(self, heads: Heads) -> Tensor:
        self.settings.append(Setting(heads.scale, heads.window))
        return self._layout.attend(heads)


@torch.no_grad()
def settings_of(model: PreTrainedModel) -> tuple[Setting, ...] | None:
    """What `Fused` needs to know; None where it is not worth its copy, or does not say what the modules say."""
    size = sum(parameter.nbytes for parameter in model.base_model.parameters())
    if model.device.type != "cpu" or model.dtype != torch.float32 or size > MOST_BYTES or not _shaped(model):
        return None
    line = probe_line(model)
    watched = _Watched(line)
    with evaluating(model):
        theirs = hidden_states(model, line.tokens, line.positions, watched)
        try:
            ours = Fused(model, watched.settings)(line.tokens, line.positions, line)
        except (AttributeError, RuntimeError, TypeError):
            return None
    return tuple(watched.settings) if torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4) else None
