"""Drawing one token per row from logits, each row with its own stream of random numbers."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.types import Sampling

BLOCK = 64
"""Tokens whose weights are summed before the sums are."""
_GOLDEN = 0x9E3779B97F4A7C15
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The 64-bit pattern as torch's int64 holds it."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _shifted(z: Tensor, bits: int) -> Tensor:
    """z ⊕ (z ≫ bits), the shift filling with zeros."""
    return z ^ ((z >> bits) & (2 ** (64 - bits) - 1))


def uniform(seeds: Int[Tensor, " B"], position: Int[Tensor, " B"] | int) -> Float[Tensor, " B"]:
    """A number in [0, 1) per row that depends on the row's seed and the position only (float64).

    The counter-based generator splitmix64: no state, so neither the batch nor the order of calls can change a draw,
    and torch's own generators stay untouched. Reference: Steele, Lea & Flood, OOPSLA 2014.
    """
    z = seeds + _signed(_GOLDEN) * (torch.as_tensor(position, device=seeds.device) + 1)
    z = _shifted(z, 30) * _signed(_MIX1)
    z = _shifted(z, 27) * _signed(_MIX2)
    z = _shifted(z, 31)
    return ((z >> 11) & (2**53 - 1)).double() * 2.0**-53


def distribution(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """log μ(· | prefix): tempered, cut to the kept support and normalised again. Greedy (temperature 0): at 1."""
    return torch.log_softmax(_supported(logits, sampling), -1)


def _supported(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """Tempered logits, −inf outside the kept support."""
    wide = logits.float()
    wide = wide if sampling.temperature in (0, 1) else wide / sampling.temperature
    if sampling.top_k and sampling.top_k < wide.shape[-1]:
        least = wide.topk(sampling.top_k, -1).values[:, -1:]
        wide = wide.masked_fill(wide < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = wide.sort(-1, descending=True)
        share = ordered.softmax(-1)
        # a token stays when those before it have not reached top_p: the first always stays
        outside = share.cumsum(-1) - share >= sampling.top_p
        wide = wide.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return wide


def draw(
    logits: Float[Tensor, "B V"], sampling: Sampling, seeds: Int[Tensor, " B"], position: Int[Tensor, " B"] | int
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Tokens by inversion of the distribution function, and their log-probs in nats.

    Token a is drawn when Σ_{v<a} w_v ≤ u·Σ_v w_v < Σ_{v≤a} w_v, with w = exp(z − max z) and u from `uniform`. The sums
    run over blocks of tokens first and then inside one block, and add up in float64, so that nothing of the
    vocabulary's size is sorted or accumulated.
    """
    wide = _supported(logits, sampling)
    peak = wide.amax(-1)
    count, vocabulary = wide.shape
    weights = wide.new_empty(count, -(-vocabulary // BLOCK) * BLOCK)
    weights[:, vocabulary:] = 0
    torch.sub(wide, peak[:, None], out=weights[:, :vocabulary]).exp_()
    blocks = weights.view(count, -1, BLOCK)
    reached = blocks.sum(-1).double().cumsum(-1)
    total = reached[:, -1]
    if sampling.temperature == 0:
        tokens = wide.argmax(-1)
    else:
        # of logits that are no numbers comes some token, and a log-prob that says so
        tokens = _inverted(blocks, reached, uniform(seeds, position) * total).clamp(max=vocabulary - 1)
    return tokens, wide.gather(-1, tokens[:, None])[:, 0] - peak - total.log().float()


def _inverted(
    blocks: Float[Tensor, "B blocks size"], reached: Float[Tensor, "B blocks"], target: Float[Tensor, " B"]
) -> Int[Tensor, " B"]:
    """The first token whose sum exceeds `target`: one of weight 0 never does."""
    last = reached.shape[1] - 1
    block = torch.searchsorted(reached, target[:, None], right=True).clamp(max=last)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK))[:, 0].double().cumsum(-1)
    passed = torch.where(block > 0, reached.gather(1, (block - 1).clamp(min=0)), 0.0)
    # rounding may put what is left at the block's very end, and the last tokens of a block may weigh nothing
    left = (target[:, None] - passed).minimum(inside[:, -1:] * (1 - 1e-12))
    return (block * BLOCK + torch.searchsorted(inside, left, right=True))[:, 0]
