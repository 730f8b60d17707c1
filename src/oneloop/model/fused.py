"""A Llama-like backbone with fewer and larger operations, for a CPU, where all but the products is overhead.

Residuals are added by the product before them; what stands between products is in `oneloop.model.pointwise`. For
decoding, where calls cost more than arithmetic, queries, keys and values come from one product and gate and up from
another, from copies made anew for every call of the engine. The mathematics is the model's own, compared with it once.
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
from oneloop.model.pointwise import gated, normed, projected, turned
from oneloop.model.probe import probe_line

MOST_BYTES = 256 * 2**20
"""Largest backbone that is copied for decoding: a larger one gains little, and its copy would be felt."""
ACTIVATIONS = (nn.SiLU, SiLUActivation)
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}

Backbone = Callable[[Tensor, Tensor, Layout], Tensor]
"""Token ids [R, N], positions [R, N] and a layout to last hidden states [R, N, H]."""


class _Merged(NamedTuple):
    """Projections side by side: one product, with the gain of the norm before them in its matrix."""

    matrix: Float[Tensor, "in out"]
    bias: Float[Tensor, " out"] | None
    widths: list[int]

    @classmethod
    def of(cls, gain: Tensor, linears: Sequence[nn.Linear]) -> _Merged:
        matrix = (torch.cat([linear.weight for linear in linears]) * gain).t().contiguous()
        bias = None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
        return cls(matrix, bias, [linear.out_features for linear in linears])

    def __call__(self, x: Tensor, eps: float) -> Sequence[Tensor]:
        return _product(normed(x, eps, None), self.matrix, self.bias).split(self.widths, -1)


class _Separate(NamedTuple):
    """A norm and the projections that read it, from the parameters themselves."""

    gain: Tensor
    linears: Sequence[nn.Linear]

    def __call__(self, x: Tensor, eps: float) -> Sequence[Tensor]:
        return projected(normed(x, eps, self.gain), self.linears)


class _Out(NamedTuple):
    """A projection that adds to the residual stream."""

    matrix: Float[Tensor, "in out"]
    bias: Float[Tensor, " out"] | None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.addmm(x if self.bias is None else x + self.bias, y, self.matrix)


class _Layer(NamedTuple):
    qkv: _Merged | _Separate
    out: _Out
    gate_up: _Merged | _Separate
    down: _Out
    query_gain: Tensor | None
    key_gain: Tensor | None

    @classmethod
    def of(cls, layer: Any, few_rows: bool) -> _Layer:
        attention, mlp, kind = layer.self_attn, layer.mlp, _Merged.of if few_rows else _Separate
        query_norm, key_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        out, down = (
            _Out(linear.weight.t().contiguous() if few_rows else linear.weight.t(), linear.bias)
            for linear in (attention.o_proj, mlp.down_proj)
        )
        return cls(
            kind(layer.input_layernorm.weight, [attention.q_proj, attention.k_proj, attention.v_proj]),
            out,
            kind(layer.post_attention_layernorm.weight, [mlp.gate_proj, mlp.up_proj]),
            down,
            None if query_norm is None else query_norm.weight,
            None if key_norm is None else key_norm.weight,
        )


class Setting(NamedTuple):
    """What a layer's attention wants beside its weights."""

    scale: float | None
    window: int | None


class Fused:
    """A backbone as `Backbone`, from the weights that `model` has now and what `settings_of` found out about it.

    Args:
        few_rows: for many calls with tens of tokens rather than thousands: projections are merged, in copies that are
            laid out as `for_few_rows` does.
    """

    def __init__(self, model: PreTrainedModel, settings: Sequence[Setting], *, few_rows: bool = False) -> None:
        backbone: Any = model.base_model
        self._embedding, self._rotary = backbone.embed_tokens, backbone.rotary_emb
        self._layers = [_Layer.of(layer, few_rows) for layer in backbone.layers]
        self._settings = settings
        self._gain, self._eps = backbone.norm.weight, _eps(backbone.norm)
        self._width: int = backbone.layers[0].self_attn.head_dim

    def __call__(
        self, tokens: Int[Tensor, "R N"], positions: Int[Tensor, "R N"], layout: Layout
    ) -> Float[Tensor, "R N H"]:
        x = self._embedding(tokens)
        cos, sin = (turn[:, :, None] for turn in self._rotary(x, position_ids=positions))
        x = x.flatten(0, 1)
        for number, layer in enumerate(self._layers):
            query, key, value = (y.view(*tokens.shape, -1, self._width) for y in layer.qkv(x, self._eps))
            if layer.query_gain is not None and layer.key_gain is not None:
                query, key = normed(query, self._eps, layer.query_gain), normed(key, self._eps, layer.key_gain)
            query, key, value = (y.transpose(1, 2) for y in (turned(query, cos, sin), turned(key, cos, sin), value))
            mixed = layout.attend(Heads(number, query, key, value, *self._settings[number]))
            x = layer.out(x, mixed.reshape(len(x), -1))
            x = layer.down(x, gated(*layer.gate_up(x, self._eps)))
        return normed(x, self._eps, self._gain).view(*tokens.shape, -1)


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, matrix) if bias is None else torch.addmm(bias, x, matrix)


def for_few_rows(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The product of a few rows with `linear`, from a copy laid out as [in, out].

    With 64 rows it runs at 124 GFLOP/s where [out, in], the order that modules keep, allows 93 (MKL, one thread).
    """
    return partial(_product, matrix=linear.weight.t().contiguous(), bias=linear.bias)


def worth_a_copy(model: PreTrainedModel) -> bool:
    """Whether decoding shall run with `few_rows`."""
    return sum(parameter.nbytes for parameter in model.base_model.parameters()) <= MOST_BYTES


def _eps(norm: Any) -> float:
    return norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps


def _shaped(model: PreTrainedModel) -> bool:
    """Whether the backbone has the parts of a Llama and no others."""
    backbone: Any = model.base_model
    if {name for name, _ in backbone.named_children()} != {"embed_tokens", "layers", "norm", "rotary_emb"}:
        return False
    return _bare(backbone.norm) and all(
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
    """What `Fused` needs to know; None where it does not say what the modules say, or where they run on a GPU."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or not _shaped(model):
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
