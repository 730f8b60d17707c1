"""log π_θ and entropy of given tokens, from hidden states, without a [N, V] tensor that outlives a chunk.

The only shift by one in the library is `states_before`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 64 * 2**20
"""Size of one chunk's float32 logits. Large enough to keep matrix products busy, small beside the weights."""

Head = Callable[[Tensor], Tensor]
"""Hidden states [N, H] to logits [N, V]."""


def states_before(hidden: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
    """The state s_t that token t was chosen in: `out[:, t]` is `hidden[:, t - 1]`, and zeros at t = 0.

    A causal model's output at position t − 1 has read tokens 0 … t − 1, which is s_t. The first token was chosen
    by nobody.
    """
    return torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], 1)


def token_logprobs(
    hidden: Float[Tensor, "N H"],
    weight: Float[Tensor, "V H"],
    targets: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log-probs of `targets` and the entropy of their distributions, both in nats and float32.

    z = hidden · weightᵀ / temperature;   log π(a) = z_a − log Σ_v exp z_v;   H = log Σ_v exp z_v − Σ_v π_v z_v

    Computed chunk by chunk; backward recomputes each chunk's logits instead of keeping them.
    """
    return head_logprobs(lambda states: F.linear(states, weight), weight.shape[0], hidden, targets, temperature)


def head_logprobs(
    head: Head,
    vocabulary: int,
    hidden: Float[Tensor, "N H"],
    targets: Int[Tensor, " N"],
    temperature: float,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """`token_logprobs` for any head, such as one with a bias or a cap on its logits."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; log-probs need a positive one (greedy decoding has none)")
    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    pieces = []
    for start in range(0, hidden.shape[0], rows):
        piece = (hidden[start : start + rows], targets[start : start + rows])
        if torch.is_grad_enabled():
            pieces.append(checkpoint(_chunk, head, *piece, temperature, use_reentrant=False, preserve_rng_state=False))
        else:
            pieces.append(_chunk(head, *piece, temperature))
    if not pieces:
        empty = hidden.sum(-1).float()
        return empty, empty
    logprobs, entropy = zip(*pieces, strict=True)
    return torch.cat(logprobs), torch.cat(entropy)


def _chunk(head: Head, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logits = head(hidden)
    return logits_logprobs(logits, targets, temperature)


def logits_logprobs(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], temperature: float = 1.0
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Log-probs of `targets` and entropies from logits: the one definition that sampler and trainer share."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    table = torch.log_softmax(wide / temperature, -1)
    # −inf logits are tokens outside the support: probability 0, and 0 · log 0 = 0
    terms = torch.where(table > -torch.inf, table.exp() * table, 0.0)
    return table.gather(-1, targets[:, None])[:, 0], -terms.sum(-1)
