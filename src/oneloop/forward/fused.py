"""A Llama-like backbone with fewer and larger operations, for a CPU, where all but the products is overhead.

Residuals are added by the product before them; what stands between products is in `oneloop.forward.pointwise`. For
decoding, where calls cost more than arithmetic, queries, keys and values come from one call and gate and up from
another, from copies made anew for every call of the engine. The mathematics is the model's own, compared with it once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from oneloop.forward.attention import Heads, Layout, evaluating, hidden_states
from oneloop.forward.pointwise import adapted, apply_rotary, gated, normed, projected
from oneloop.forward.probe import probe_sequence
from oneloop.forward.projection import Projection, projection_of
from oneloop.forward.recompute import again

MOST_BYTES = 256 * 2**20
"""Largest backbone that is copied for decoding: a larger one gains little, and its copy would be felt."""
GAP = 16
"""Numbers between rows of a copy: one line of the cache."""
COLUMNS = range(512, 63, -1)
"""Of a block, the best first: so many, of some hundred rows each, stay in a core's second cache."""
ACTIVATIONS = (nn.SiLU, SiLUActivation)
LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
NORMS = ("q_norm", "k_norm")
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}

Backbone = Callable[[Tensor, Tensor, Layout], Tensor]
"""Token ids [R, N], positions [R, N] and a layout to last hidden states [R, N, H]."""


class _Merged(NamedTuple):
    """Projections that read one input, in one call: blocks of columns, with the gain of the norm before in them."""

    blocks: Float[Tensor, "blocks H width"]
    bias: Float[Tensor, "blocks 1 width"] | None
    counts: list[int]
    """Blocks of each part that comes out: of a projection, or of several that are used alike."""

    @classmethod
    def of(cls, gain: Tensor, width: int, *parts: Sequence[Projection]) -> _Merged:
        whole = [projection for part in parts for projection in part]
        blocks = in_blocks(torch.cat([projection.merged for projection in whole]) * gain, width)
        biases = [projection.bias for projection in whole if projection.bias is not None]
        bias = torch.cat(biases).view(-1, 1, width) if biases else None
        return cls(blocks, bias, [sum(len(projection.weight) for projection in part) // width for part in parts])

    def __call__(
        self, x: Float[Tensor, "N H"], eps: Tensor, asking: Int[Tensor, " M"] | None = None
    ) -> Sequence[Float[Tensor, "of_part N width"]]:
        assert asking is None  # queries and keys come from one product
        x = normed(x, eps, None).expand(len(self.blocks), -1, -1)
        y = torch.bmm(x, self.blocks) if self.bias is None else torch.baddbmm(self.bias, x, self.blocks)
        return y.split_with_sizes(self.counts)


class _Separate(NamedTuple):
    """A norm and the projections that read it, from the parameters themselves."""

    gain: Tensor
    projections: Sequence[Projection]

    def __call__(self, x: Tensor, eps: Tensor, asking: Int[Tensor, " M"] | None = None) -> Sequence[Tensor]:
        """Args: asking: the tokens that the first projection is for; None: all."""
        x = normed(x, eps, self.gain)
        if asking is None:
            return projected(x, self.projections)
        return *projected(x.index_select(0, asking), self.projections[:1]), *projected(x, self.projections[1:])


class _OutOfBlocks(NamedTuple):
    """A projection that adds to the residual stream, from blocks of its input."""

    blocks: Float[Tensor, "blocks width out"]
    bias: Float[Tensor, " out"] | None

    @classmethod
    def of(cls, projection: Projection, width: int) -> _OutOfBlocks:
        return cls(_in_out(projection.merged).unflatten(0, (-1, width)), projection.bias)

    def __call__(self, x: Float[Tensor, "N out"], y: Tensor) -> Float[Tensor, "N out"]:
        x = x if self.bias is None else x + self.bias
        return x.addbmm_(y.view(len(self.blocks), len(x), -1), self.blocks)


class _Out(NamedTuple):
    """A projection that adds to the residual stream, from the parameters themselves."""

    projection: Projection

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        weight, bias, adapter = self.projection
        x = x if bias is None else x + bias
        x = torch.addmm(x, y, weight.t()) if torch.is_grad_enabled() else x.addmm_(y, weight.t())
        return adapted((x,), y, [adapter])[0]


class _Layer(NamedTuple):
    qkv: _Merged | _Separate
    """Queries, keys and values; queries and keys in one part where they are merged."""
    gains: Sequence[Tensor | None]
    """Of the norms of queries and keys, for each part that they come in."""
    out: _OutOfBlocks | _Out
    gate_up: _Merged | _Separate
    down: _OutOfBlocks | _Out

    @classmethod
    def of(cls, layer: Any, decode: bool) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value, out = (_read(getattr(attention, name)) for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
        gate, up, down = (_read(getattr(mlp, name)) for name in ("gate_proj", "up_proj", "down_proj"))
        gains = [getattr(attention, name).weight if hasattr(attention, name) else None for name in NORMS]
        before, between = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        if not decode:
            of_input, of_middle = _Separate(before, [query, key, value]), _Separate(between, [gate, up])
            return cls(of_input, gains, _Out(out), of_middle, _Out(down))
        of_heads = block_width([len(part.weight) for part in (query, key, value)], attention.head_dim)
        of_halves = block_width([len(gate.weight)])
        return cls(
            _Merged.of(before, of_heads, [query, key], [value]),
            [_by_head(gains, [query, key], of_heads)],
            _OutOfBlocks.of(out, out.weight.shape[1]),
            _Merged.of(between, of_halves, [gate], [up]),
            _OutOfBlocks.of(down, of_halves),
        )


def _read(module: nn.Module) -> Projection:
    projection = projection_of(module)
    assert projection is not None  # `_bare` has looked
    return projection


def _by_head(gains: Sequence[Tensor | None], projections: Sequence[Projection], width: int) -> Tensor | None:
    """Gains of heads for each head that `projections` make, in blocks of `width`: [blocks, 1, 1, heads, D]."""
    pairs = zip(gains, projections, strict=True)
    below = [gain.expand(len(projection.weight) // len(gain), -1) for gain, projection in pairs if gain is not None]
    return torch.cat(below).view(-1, 1, 1, width // below[0].shape[1], below[0].shape[1]) if below else None


class Setting(NamedTuple):
    """What a layer's attention wants beside its weights."""

    scale: float | None
    window: int | None


class Fused:
    """A backbone as `Backbone`, from the weights that `model` has now and what `settings_of` found out about it.

    Args:
        decode: for many calls with tens of tokens rather than thousands: projections are merged, in copies that are
            laid out as `decode_linear` does.
        recompute: layers are computed again for gradients.
    """

    def __init__(
        self, model: PreTrainedModel, settings: Sequence[Setting], *, decode: bool = False, recompute: bool = False
    ) -> None:
        backbone: Any = model.base_model
        self._recompute = recompute
        self._embedding, self._rotary = backbone.embed_tokens, backbone.rotary_emb
        self._layers = [_Layer.of(layer, decode) for layer in backbone.layers]
        self._settings = settings
        self._gain, self._eps = backbone.norm.weight, torch.tensor(_eps(backbone.norm))
        attention = backbone.layers[0].self_attn
        self._width: int = attention.head_dim
        self._heads = [linear.out_features // self._width for linear in (attention.q_proj, attention.k_proj)]

    def __call__(
        self,
        tokens: Int[Tensor, "R N"],
        positions: Int[Tensor, "R N"],
        layout: Layout,
        read: Int[Tensor, " M"] | None = None,
    ) -> Float[Tensor, "R N H"] | Float[Tensor, "1 M H"]:
        """Last hidden states.

        Args:
            read: of one row, the tokens whose states anyone reads, each once; None: all. Of the others, the last layer
                makes keys and values alone. Not with `decode`.
        """
        x = self._embedding(tokens)
        turns = tuple(turn[:, :, None] for turn in self._rotary(x, position_ids=positions))
        x, last = x.flatten(0, 1), len(self._layers) - 1
        for number in range(len(self._layers)):
            asking = read if number == last else None
            one = partial(self._layer, number, turns=turns, rows=len(tokens), layout=layout, asking=asking)
            x = again(one, x) if self._recompute else one(x)
        return normed(x, self._eps, self._gain).view(len(tokens), -1, x.shape[-1])

    def _layer(
        self,
        number: int,
        x: Float[Tensor, "RN H"],
        *,
        turns: Sequence[Tensor],
        rows: int,
        layout: Layout,
        asking: Int[Tensor, " M"] | None,
    ) -> Float[Tensor, "RN_or_M H"]:
        """Args: asking: as for `Heads`: the tokens that have queries, and go on after attention."""
        layer = self._layers[number]
        *parts, value = (
            y.view(*y.shape[:-2], rows, y.shape[-2] // rows, y.shape[-1] // self._width, self._width)
            for y in layer.qkv(x, self._eps, asking)
        )
        first, *rest = self._normed(parts, layer.gains)
        asked = turns if asking is None else [turn.index_select(1, asking) for turn in turns]
        parts = [apply_rotary(first, *asked), *(apply_rotary(y, *turns) for y in rest)]
        query, key = parts if len(parts) == 2 else self._of_blocks(*parts)
        query, key, value = (_side_by_side(y).transpose(1, 2) for y in (query, key, value))
        mixed = layout.attend(Heads(number, query, key, value, *self._settings[number], asking))
        x = x if asking is None else x.index_select(0, asking)
        x = layer.out(x, mixed.flatten(2).flatten(0, 1))
        return layer.down(x, gated(*layer.gate_up(x, self._eps)))

    def _of_blocks(self, both: Float[Tensor, "blocks R N heads D"]) -> Sequence[Tensor]:
        """Queries and keys."""
        return both.split_with_sizes([count // both.shape[3] for count in self._heads])

    def _normed(self, parts: Sequence[Tensor], gains: Sequence[Tensor | None]) -> Sequence[Tensor]:
        pairs = zip(parts, gains, strict=True)
        return [y if gain is None else normed(y, self._eps, gain) for y, gain in pairs]


def _side_by_side(y: Float[Tensor, "*blocks R N heads D"]) -> Float[Tensor, "R N all_heads D"]:
    return y if y.dim() == 4 else y.permute(1, 2, 0, 3, 4).flatten(2, 3)


def _product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, matrix) if bias is None else torch.addmm(bias, x, matrix)


def decode_linear(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """The product of a few rows with `linear`, from a copy laid out by `_in_out`."""
    return partial(_product, matrix=_in_out(linear.weight), bias=linear.bias)


def _in_out(weight: Float[Tensor, "out in"]) -> Float[Tensor, "in out"]:
    """A copy whose rows lie one behind the other, each with a gap after it.

    With few rows on the left, MKL reads it faster than the order that modules keep; without the gap, rows of 2048 or
    4096 numbers fall onto the same lines of the cache, and it reads them slower.
    `benchmarks/single/decode_matrices.py` shows both.
    """
    matrix = weight.new_empty(weight.shape[1], weight.shape[0] + GAP)[:, : weight.shape[0]]
    return matrix.copy_(weight.t())


def block_width(columns: Sequence[int], unit: int = 1) -> int:
    """Columns of blocks into which projections of so many can be cut, between units of so many columns."""
    common = math.gcd(*columns)
    return next((width for width in COLUMNS if common % width == 0 and width % unit == 0), common)


def in_blocks(weight: Float[Tensor, "out in"], width: int) -> Float[Tensor, "blocks H width"]:
    """A copy in blocks of columns of its transpose. With few rows on the left, a batched product with the blocks takes
    less time than one with a wide matrix, whose rows are pages apart: `benchmarks/single/decode_matrices.py`."""
    return weight.unflatten(0, (-1, width)).mT.contiguous()


def worth_a_copy(model: PreTrainedModel) -> bool:
    """Whether decoding shall run with `decode`."""
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
        and {name for name, _ in layer.self_attn.named_children()} in (ATTENTION, ATTENTION | set(NORMS))
        and {name for name, _ in layer.mlp.named_children()} == MLP
        and isinstance(layer.mlp.act_fn, ACTIVATIONS)
        and _bare(layer)
        for layer in backbone.layers
    )


def _bare(layer: nn.Module) -> bool:
    """No hook, and nothing around a projection but a plain adapter: `Fused` reads weights, and would pass it by."""
    inner = layer.modules()
    linears = [module for name, module in layer.named_modules() if name.endswith("_proj")]
    return all(projection_of(linear) is not None for linear in linears) and not any(
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
    sequence = probe_sequence(model)
    watched = _Watched(sequence)
    with evaluating(model):
        theirs = hidden_states(model, sequence.tokens, sequence.positions, watched)
        try:
            ours = Fused(model, watched.settings)(sequence.tokens, sequence.positions, sequence)
        except (AttributeError, RuntimeError, TypeError):
            return None
    return tuple(watched.settings) if torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4) else None
