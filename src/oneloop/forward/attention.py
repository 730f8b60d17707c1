"""The one place where a Hugging Face model's attention is replaced: by a layout that says which token sees which.

The modules stay as they are. While `hidden_states` runs, their configuration names an attention function of ours,
which hands projected queries, keys and values to the layout; afterwards the configuration names what it did before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.compiler import disable
from transformers import AttentionInterface, PreTrainedModel

NAME = "oneloop"


class Heads(NamedTuple):
    """What one attention layer projected, and how it wants it compared. R rows, N tokens, D head dimension."""

    layer: int
    query: Float[Tensor, "R heads N D"] | Float[Tensor, "1 heads M D"]
    """Positions are already in it."""
    key: Float[Tensor, "R kv_heads N D"]
    value: Float[Tensor, "R kv_heads N D"]
    scale: float | None
    """Factor of the products; None: 1/√D."""
    window: int | None
    """A token sees this many, itself included; None: all before it."""
    asking: Int[Tensor, " M"] | None = None
    """Of one row, the tokens that the queries belong to, each once; None: all."""


@runtime_checkable
class Layout(Protocol):
    """Who sees whom."""

    def attend(self, heads: Heads) -> Float[Tensor, "R N heads D"]: ...


@disable(reason="the rows of a batch say how many buckets it goes over")
def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The signature that transformers calls. Dropout is off: the loop needs one function, not a random one."""
    if softcap is not None or s_aux is not None or attention_mask is not None:
        raise NotImplementedError("capped scores, attention sinks and given masks")
    layer: int = module.layer_idx  # pyright: ignore[reportAssignmentType]
    return layout.attend(Heads(layer, query, key, value, scaling, sliding_window)), None


AttentionInterface.register(NAME, _attention)


def hidden_states(
    model: PreTrainedModel, tokens: Int[Tensor, "R N"], positions: Int[Tensor, "R N"], layout: Layout
) -> Float[Tensor, "R N H"]:
    """Last hidden states of the backbone, after its final norm, with attention as `layout` has it."""
    backbone = model.base_model
    with switched(backbone.config):
        return backbone(input_ids=tokens, position_ids=positions, use_cache=False, layout=layout).last_hidden_state


@contextmanager
def switched(config: Any) -> Iterator[None]:
    """Attention as `oneloop` has it."""
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout and checkpointing off, whatever mode the trainer is in; every module's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
