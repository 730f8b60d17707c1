"""A small Llama-like backbone with fewer and larger operations: for decoding, where calls cost more than arithmetic.

Queries, keys and values come from one product, gate and up from another, norms' gains are part of the matrix that
follows them, residuals are added by the product. The mathematics is the model's own and is compared with it once; the
matrices are put together anew for every call of the engine, since the weights change between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from oneloop.model.attention import Heads, Layout, evaluating, hidden_states
from oneloop.model.probe import probe_line

MOST_BYTES = 256 * 2**20
"""Largest backbone that is put together: a larger one gains little, and its copy would be felt."""
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}

Backbone = Callable[[Tensor, Tensor, Layout], Tensor]
"""Token ids [R, N], positions [R, N] and a layout to last hidden states [R, N, H]."""


class _Linear(NamedTuple):
    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None


class _Layer(NamedTuple):
    qkv: _Linear
    out: _Linear
    gate_up: _Linear
    down: _Linear
    query_gain: Tensor | None
    key_gain: Tensor | None
    activation: nn.Module


class Setting(NamedTuple):
    """What a layer's attention wants beside its weights."""

    scale: float | None
    window: int | None


class Fused:
    """A backbone as `Backbone`, from the weights that `model` has now and what `settings_of` found out about it."""

    def __init__(self, model: PreTrainedModel, settings: Sequence[Setting]) -> None:
        backbone: Any = model.base_model
        self._embedding, self._rotary = backbone.embed_tokens, backbone.rotary_emb
        self._layers = [_merged(layer) for layer in backbone.layers]
        self._settings = settings
        self._gain, self._eps = backbone.norm.weight, _eps(backbone.norm)
        self._width: int = backbone.layers[0].self_attn.head_dim

    def __call__(
        self, tokens: Int[Tensor, "R N"], positions: Int[Tensor, "R N"], layout: Layout
    ) -> Float[Tensor, "R N H"]:
        x = self._embedding(tokens)
        cos, sin = self._rotary(x, position_ids=positions)
        half = self._width // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)  # the sign of "rotate half"
        turn = (cos[:, :, None].expand(*tokens.shape, 1, -1), sin[:, :, None].expand(*tokens.shape, 1, -1))
        x = x.flatten(0, 1)
        for number, layer in enumerate(self._layers):
            heads = self._heads(number, layer, F.linear(self._normed(x), *layer.qkv), turn, tokens.shape)
            x = _added(x, layout.attend(heads).reshape(len(x), -1), layer.out)
            gate, up = F.linear(self._normed(x), *layer.gate_up).chunk(2, -1)
            x = _added(x, layer.activation(gate).mul_(up), layer.down)
        return (self._normed(x) * self._gain).view(*tokens.shape, -1)

    def _heads(self, number: int, layer: _Layer, qkv: Tensor, turn: tuple[Tensor, Tensor], shape: torch.Size) -> Heads:
        heads = qkv.view(*shape, -1, self._width)
        keys = (layer.qkv.weight.shape[0] - layer.out.weight.shape[1]) // (2 * self._width)
        turned, value = heads[:, :, :-keys], heads[:, :, -keys:]
        if layer.query_gain is not None and layer.key_gain is not None:
            normed = self._normed(turned)
            turned = torch.cat([normed[:, :, :-keys] * layer.query_gain, normed[:, :, -keys:] * layer.key_gain], 2)
        half = self._width // 2
        swapped = torch.cat([turned[..., half:], turned[..., :half]], -1)
        turned = torch.addcmul(turned * turn[0], swapped, turn[1])
        query, key = turned[:, :, :-keys], turned[:, :, -keys:]
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return Heads(number, query, key, value, *self._settings[number])

    def _normed(self, x: Tensor) -> Tensor:
        """Root-mean-square norm without its gain."""
        return x * (x.square().mean(-1, keepdim=True).add_(self._eps)).rsqrt_()


def _merged(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    query_gain, key_gain = (None if norm is None else norm.weight for norm in norms)
    return _Layer(
        qkv=_stacked([attention.q_proj, attention.k_proj, attention.v_proj], layer.input_layernorm.weight),
        out=_Linear(attention.o_proj.weight, attention.o_proj.bias),
        gate_up=_stacked([mlp.gate_proj, mlp.up_proj], layer.post_attention_layernorm.weight),
        down=_Linear(mlp.down_proj.weight, mlp.down_proj.bias),
        query_gain=query_gain,
        key_gain=key_gain,
        activation=mlp.act_fn,
    )


def _stacked(linears: list[nn.Linear], gain: Tensor) -> _Linear:
    bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
    return _Linear(torch.cat([linear.weight for linear in linears]) * gain, bias)


def _added(x: Tensor, y: Tensor, linear: _Linear) -> Tensor:
    return torch.addmm(x if linear.bias is None else x + linear.bias, y, linear.weight.t())


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
        for layer in backbone.layers
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
