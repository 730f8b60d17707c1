"""Drawing one token per row from logits, each row with its own stream of random numbers."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.types import Sampling

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The 64-bit pattern as torch's int64 holds it."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _shifted(z: Tensor, bits: int) -> Tensor:
    """z ⊕ (z ≫ bits), the shift filling with zeros."""
    return z ^ ((z >> bits) & (2 ** (64 - bits) - 1))


def uniform(seeds: Int[Tensor, " B"], position: int) -> Float[Tensor, " B"]:
    """A number in [0, 1) per row that depends on the row's seed and the position only (float64).

    The counter-based generator splitmix64: no state, so neither the batch nor the order of calls can change a draw,
    and torch's own generators stay untouched. Reference: Steele, Lea & Flood, OOPSLA 2014.
    """
    z = seeds + _signed(_GOLDEN * (position + 1))
    z = _shifted(z, 30) * _signed(_MIX1)
    z = _shifted(z, 27) * _signed(_MIX2)
    z = _shifted(z, 31)
    return ((z >> 11) & (2**53 - 1)).double() * 2.0**-53


def distribution(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """log μ(· | prefix): tempered, cut to the kept support and normalised again. Greedy (temperature 0): at 1."""
    wide = logits.float() / (sampling.temperature or 1.0)
    if sampling.top_k and sampling.top_k < wide.shape[-1]:
        least = wide.topk(sampling.top_k, -1).values[:, -1:]
        wide = wide.masked_fill(wide < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = wide.sort(-1, descending=True)
        share = ordered.softmax(-1)
        # a token stays when those before it have not reached top_p: the first always stays
        outside = share.cumsum(-1) - share >= sampling.top_p
        wide = wide.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return torch.log_softmax(wide, -1)


def draw(
    logits: Float[Tensor, "B V"], sampling: Sampling, seeds: Int[Tensor, " B"], position: int
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Tokens by inversion of the distribution function, and their log-probs in nats."""
    logprobs = distribution(logits, sampling)
    if sampling.temperature == 0:
        tokens = logprobs.argmax(-1)
    else:
        reached = logprobs.double().exp().cumsum(-1)
        # right=True finds the first token whose sum exceeds the number: one of probability 0 never does
        target = uniform(seeds, position)[:, None] * reached[:, -1:]
        tokens = torch.searchsorted(reached, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]
