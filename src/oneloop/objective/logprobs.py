"""log π_θ and entropy of given tokens, from hidden states, without a large [N, V] tensor that outlives a chunk.

The only shift by one in the library is `before`.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class HeadMemory(NamedTuple):
    """Bytes for the float32 log-probs of the whole vocabulary."""

    chunk: int
    """Of the tokens that are worked on at a time: on a CPU so few that they stay in its cache."""
    kept: int
    """Of all tokens of a pass, up to which they are kept for backward, which need not compute them again."""


HEAD_MEMORY = {"cpu": HeadMemory(2**24, 2**26), "cuda": HeadMemory(2**30, 2**30)}
LEAST_ROWS = 128
"""Fewest tokens of a chunk: with fewer, reading the head's weights costs more than the product."""

Entropy = Literal["none", "value", "gradient"]
"""Whether the entropy is computed, and whether anything is differentiated through it. "none" gives NaN."""


def before(of_tokens: Shaped[Tensor, "B T"]) -> Shaped[Tensor, "B T"]:
    """What belongs to the token before: `out[:, t]` is `of_tokens[:, t - 1]`, and its first column again at t = 0.

    A causal model's output at position t − 1 has read tokens 0 … t − 1, which is the state s_t that token t was
    chosen in. The first token was chosen by nobody: it can be no action.
    """
    return torch.cat([of_tokens[:, :1], of_tokens[:, :-1]], 1)


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    targets: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    bias: Float[Tensor, " V"] | None = None,
    entropy: Entropy = "gradient",
    memory: HeadMemory | None = None,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log-probs of `targets` and the entropy of their distributions, both in nats and float32.

    z = (hidden · weightᵀ + bias) / temperature;   log π(a) = z_a − log Σ_v exp z_v;   H = log Σ_v exp z_v − Σ_v π_v z_v

    Computed chunk by chunk; backward computes each chunk's logits again, unless all together are few enough to keep.

    Args:
        memory: None: as `HEAD_MEMORY` has it for the device.

    Raises: ValueError for a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; log-probs need a positive one (greedy decoding has none)")
    memory = memory or HEAD_MEMORY["cpu" if hidden.device.type == "cpu" else "cuda"]
    count, vocabulary = len(targets), weight.shape[0]
    keep = torch.is_grad_enabled() and _keeps(count, vocabulary, memory)
    chunks = _chunks(count, chunk_rows(memory, vocabulary))
    return _HeadLogprobs.apply(hidden, weight, bias, targets, temperature, entropy, chunks, keep)  # pyright: ignore[reportReturnType]


def table_bytes(count: int, vocabulary: int, memory: HeadMemory) -> int:
    """Most bytes of the vocabulary's log-probs that `token_logprobs` of `count` tokens has, and backward after it."""
    rows = count if _keeps(count, vocabulary, memory) else min(count, chunk_rows(memory, vocabulary))
    return 4 * vocabulary * rows


def logits_logprobs(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], temperature: float = 1.0
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log-probs of `targets` and entropies from logits: the plain definition, which `token_logprobs` must equal."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    table = torch.log_softmax(wide / temperature, -1)
    # −inf logits are tokens outside the support: probability 0, and 0 · log 0 = 0
    terms = torch.where(table > -torch.inf, table.exp() * table, 0.0)
    return table.gather(-1, targets[:, None])[:, 0], -terms.sum(-1)


class _HeadLogprobs(torch.autograd.Function):
    """Forward and backward of `token_logprobs`.

    With p = softmax(z):   ∂log π(a)/∂z = e_a − p,   ∂H/∂z = −p ∘ (log p + H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        entropy: Entropy,
        chunks: list[slice],
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        product = _product_dtype(hidden)
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        count, head = len(targets), (weight.to(product), None if bias is None else bias.to(product))
        logprobs, entropies = (torch.full((count,), torch.nan, dtype=wide, device=hidden.device) for _ in range(2))
        kept: list[Tensor] = []
        for chunk in chunks:
            table = torch.log_softmax(_logits(hidden[chunk].to(product), head, temperature, wide), -1)
            logprobs[chunk] = table.gather(-1, targets[chunk, None])[:, 0]
            if entropy != "none":
                entropies[chunk] = _entropy(table)
            if keep:
                kept.append(table)
        ctx.save_for_backward(hidden, weight, bias, targets, entropies, *kept)
        ctx.settings = (temperature, entropy, product, wide, chunks)
        if entropy != "gradient":
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, weight, bias, targets, entropies, *kept = ctx.saved_tensors
        temperature, entropy, product, wide, chunks = ctx.settings
        head = (weight.to(product), None if bias is None else bias.to(product))
        inputs: Any = (hidden, weight, bias)
        d_hidden, d_weight, d_bias = (
            torch.zeros_like(x, dtype=wide) if wanted else None
            for x, wanted in zip(inputs, ctx.needs_input_grad, strict=False)
        )
        for number, chunk in enumerate(chunks):
            states = hidden[chunk].to(product)
            # what was kept stays as it is, for a graph that is walked twice
            table = kept[number] if kept else torch.log_softmax(_logits(states, head, temperature, wide), -1)
            of_entropy = (gradients[1][chunk], entropies[chunk]) if entropy == "gradient" else None
            slope = _slope(table, targets[chunk], gradients[0][chunk].to(wide), of_entropy)
            slope = slope if temperature == 1 else slope.div_(temperature)
            narrow = slope.to(product)
            if d_hidden is not None:
                d_hidden[chunk] = narrow @ head[0]
            if d_weight is not None and narrow.dtype == wide:
                d_weight.addmm_(narrow.T, states)
            elif d_weight is not None:
                d_weight += narrow.T @ states
            if d_bias is not None:
                d_bias += slope.sum(0)
        given = zip((d_hidden, d_weight, d_bias), inputs, strict=True)
        return *(None if d is None else d.to(x.dtype) for d, x in given), None, None, None, None, None


def _slope(
    table: Tensor, targets: Tensor, of_logprobs: Tensor, of_entropy: tuple[Tensor, Tensor] | None
) -> Float[Tensor, "N V"]:
    """∂loss/∂z from log p and the loss's slopes in log-probs and entropy."""
    if of_entropy is None:
        slope = table.exp().mul_(-of_logprobs[:, None])
    else:
        given, entropies = of_entropy
        pull = table.clamp(min=torch.finfo(table.dtype).min).add_(entropies[:, None]).mul_(given[:, None])
        slope = table.exp().mul_(pull.add_(of_logprobs[:, None]).neg_())
    return slope.scatter_add_(-1, targets[:, None], of_logprobs[:, None])


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """What the matrix products run in: autocast does not reach into a backward pass of its own accord."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _keeps(count: int, vocabulary: int, memory: HeadMemory) -> bool:
    return 4 * vocabulary * count <= memory.kept


def chunk_rows(memory: HeadMemory, vocabulary: int) -> int:
    """Tokens of one chunk."""
    return max(memory.chunk // (4 * vocabulary), LEAST_ROWS)


def _chunks(count: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, count)) for start in range(0, count, rows)]


def _logits(states: Tensor, head: tuple[Tensor, Tensor | None], temperature: float, wide: torch.dtype) -> Tensor:
    """Tempered logits of one chunk, in a tensor of its own."""
    with torch.autocast(states.device.type, enabled=False):
        logits = F.linear(states, head[0].to(states.dtype), head[1]).to(wide)
    return logits if temperature == 1 else logits.div_(temperature)


def _entropy(table: Float[Tensor, "N V"]) -> Float[Tensor, " N"]:
    """H = −Σ p log p, where a log-prob of −inf has probability 0 and gives 0."""
    found = table.exp().mul_(table).sum(-1).neg_()
    if bool(found.isnan().any()):
        finite = table.clamp(min=torch.finfo(table.dtype).min)
        found = (finite.exp() * finite).sum(-1).neg_()
    return found
