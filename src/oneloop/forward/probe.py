"""What a fast path may assume of a model, tried on the model itself instead of read off its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oneloop.batch import Batch
from oneloop.errors import ConfigError
from oneloop.forward.attention import Heads, evaluating, hidden_states
from oneloop.forward.compiled import cannot_compile
from oneloop.forward.packed import Packed, packed

ROWS = ([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9], [3, 1, 4, 1, 5, 2, 7], [1, 8])
"""Token ids: two rows that share a prompt of five, and one alone. Three rows of at most 13: a compiler would take a
width that is a multiple of the rows for a rule."""
KINDS = {"full_attention", "sliding_attention"}
"""Layer types that a layout knows; others keep a state of their own, or cut the context in other ways."""


@torch.no_grad()
def plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are the output embedding of the last hidden state and nothing else (no cap, no scale)."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    rows = _rows(model)[:1]
    with evaluating(model), _precision(model) as dtype:
        try:
            ours = head(_plain_states(model, rows))
        except (AttributeError, RuntimeError, TypeError):
            return False
        theirs = model(input_ids=torch.tensor(rows, device=model.device), use_cache=False).logits[0]
        return _close(ours, theirs, dtype)


def one_kernel(model: PreTrainedModel, dtype: torch.dtype) -> bool:
    """Whether a GPU's kernel for the whole sequence compiles here, backward too, and says what buckets say.

    Args:
        dtype: of the forward passes to come.
    """
    if model.device.type != "cuda":
        return False
    batch = _batch(_rows(model), model.device)
    buckets, sequence = packed(batch), packed(batch, one_kernel=True)
    with evaluating(model), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        with torch.no_grad():
            plain = hidden_states(model, buckets.tokens, buckets.positions, buckets)
        try:
            ours = hidden_states(model, sequence.tokens, sequence.positions, sequence)
            if ours.requires_grad:
                torch.autograd.grad(ours.sum(), next(p for p in model.base_model.parameters() if p.requires_grad))
        except Exception:  # a missing compiler, an odd head size, too little memory on the chip: whatever it is
            return False
    return _close(ours.detach(), plain, dtype)


def check_compiled(
    model: PreTrainedModel, compiled: Callable[[Batch], Tensor], plain: Callable[[Batch], Tensor], dtype: torch.dtype
) -> None:
    """Try both ways to the states of a few rows, the compiled one backward too.

    What a compiler makes of a layer may depend on the lengths that it meets first. These are the same in every run, so
    one that is resumed has the kernels of one that never stopped.

    Raises: ConfigError where they differ, or where the compiler fails.
    """
    batch = _batch(_rows(model), model.device)
    trained = [parameter for parameter in model.base_model.parameters() if parameter.requires_grad]
    with evaluating(model), torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        try:
            with torch.no_grad():
                ours = compiled(batch)
            if trained:
                torch.autograd.grad(compiled(batch).sum(), trained[0])
        except Exception as error:  # of torch, of the compiler, or of whoever loads what it made
            raise ConfigError(cannot_compile(error)) from error
        with torch.no_grad():
            theirs = plain(batch)
    if not _close(ours, theirs, dtype):
        raise ConfigError(
            f"--compile: {type(model).__name__}'s layers say something else compiled than as they are, by up to "
            f"{float((ours - theirs).abs().max()):.2g}. Fix: leave it out"
        )


@torch.no_grad()
def packs(model: PreTrainedModel) -> bool:
    """Whether rows end to end, prompts shared, give the states that the unchanged model gives each row alone."""
    rows, sequence = _rows(model), probe_sequence(model)
    watched = _Watched(sequence)
    with evaluating(model), _precision(model) as dtype:
        try:
            flat = hidden_states(model, sequence.tokens, sequence.positions, watched)[0]
            theirs = _plain_states(model, rows)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False
    ours = torch.cat([flat[sequence.index[row, : len(tokens)]] for row, tokens in enumerate(rows)])
    return _known_layers(model) and watched.windows == _windows(model) and _close(ours, theirs, dtype)


def probe_sequence(model: PreTrainedModel) -> Packed:
    """Rows to try a model on, end to end."""
    return packed(_batch(_rows(model), model.device))


class _Watched:
    """A layout that notes which layers see a window only: one longer than the rows would not show in the states."""

    def __init__(self, sequence: Packed) -> None:
        self._sequence = sequence
        self.windows: dict[int, bool] = {}

    def attend(self, heads: Heads) -> Tensor:
        if heads.layer in self.windows:
            raise NotImplementedError("a layer that attends twice")  # keys and values are kept by layer
        self.windows[heads.layer] = heads.window is not None
        return self._sequence.attend(heads)


def _windows(model: PreTrainedModel) -> dict[int, bool]:
    """By layer, whether the configuration wants a window."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    everywhere = getattr(config, "sliding_window", None) is not None
    return {
        layer: everywhere if kinds is None else kinds[layer] == "sliding_attention"
        for layer in range(config.num_hidden_layers)
    }


def _known_layers(model: PreTrainedModel) -> bool:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    cut = getattr(config, "attention_chunk_size", None) is not None
    return kinds <= KINDS and not cut and getattr(config, "is_causal", True) and not config.is_encoder_decoder


def _rows(model: PreTrainedModel) -> list[list[int]]:
    vocabulary = model.config.get_text_config().vocab_size
    return [[token % vocabulary for token in row] for row in ROWS]


def _batch(rows: list[list[int]], device: torch.device) -> Batch:
    width = len(rows[0])
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return Batch(
        tokens=tokens,
        mask=torch.zeros_like(tokens, dtype=torch.bool),
        group=torch.tensor([0, 0, 1], device=device),
        rewards=torch.zeros(tokens.shape, device=device),
        truncated=torch.zeros_like(lengths, dtype=torch.bool),
        lengths=lengths,
    )


def _plain_states(model: PreTrainedModel, rows: list[list[int]]) -> Tensor:
    """States of the unchanged backbone, one row at a time, end to end."""
    batches = (torch.tensor([row], device=model.device) for row in rows)
    return torch.cat([model.base_model(input_ids=row, use_cache=False).last_hidden_state[0] for row in batches])


@contextmanager
def _precision(model: PreTrainedModel) -> Iterator[torch.dtype]:
    """Products as a model needs them that holds some of its matrices in half precision; else in float32."""
    narrow = {parameter.dtype for parameter in model.parameters()} & {torch.bfloat16, torch.float16}
    dtype = narrow.pop() if narrow else torch.float32
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        yield dtype


def _close(ours: Tensor, theirs: Tensor, dtype: torch.dtype | None = None) -> bool:
    """`dtype`: that of the products, where the results do not show it."""
    tolerance = 1e-4 if (dtype or theirs.dtype) == torch.float32 else 5e-2
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)
