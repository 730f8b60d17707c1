"""Preference pairs as the update saw them: log-probs, margins, and the weight of each pair in the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.algorithms.preference import Preference, labels, leads
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.preference import pairs
from oneloop.trace.columns import numbers, whole_numbers, words
from oneloop.trace.passes import Passes

if TYPE_CHECKING:  # slow to load
    import pyarrow

MOST_PAIRS = 64
"""Of a step."""


def pair_table(
    step: int, batch: Batch, seen: Passes, algorithm: Preference, decode: Callable[[Sequence[int]], str]
) -> pyarrow.Table | None:
    """A row for each of the first pairs that a pass saw, with the numbers of its first one; None without any.

    `weight` is −∂link/∂margin times the weight of the preference term: what the gradient of this pair's margin is
    multiplied with. For DPO that is σ(−margin).
    """
    import pyarrow  # noqa: PLC0415

    if not len(seen.update):
        return None
    chosen, rejected = pairs(batch.group, labels(batch))
    both = (seen.seen[0][chosen] & seen.seen[0][rejected]).nonzero()[:MOST_PAIRS, 0]
    if not len(both):
        return None
    chosen, rejected = chosen[both], rejected[both]
    rewards = algorithm.reward(PolicyOutput(seen.logprobs[0], scores=seen.scores), batch)
    margin = rewards[chosen] - rewards[rejected]
    logps = None if seen.scores is not None else _sums(seen.logprobs[0], batch)
    refs = None if batch.ref_logprobs is None else _sums(batch.ref_logprobs, batch)
    lengths = batch.mask.sum(1)

    def of(values: Tensor | None, rows: Tensor) -> pyarrow.Array:
        return numbers(None if values is None else values[rows], len(both))

    def said(rows: Tensor) -> pyarrow.Array:
        return words([decode(batch.tokens[row][batch.mask[row]].tolist()) for row in rows.tolist()])

    first = torch.where(batch.mask.any(1), batch.mask.int().argmax(1), batch.lengths)
    asked = torch.minimum(first[chosen], first[rejected]).tolist()
    return pyarrow.table(
        {
            "step": whole_numbers([step] * len(both)),
            "pair": whole_numbers(batch.group[chosen]),
            "prompt": words(
                [decode(batch.tokens[r][:n].tolist()) for r, n in zip(chosen.tolist(), asked, strict=True)]
            ),
            "chosen": said(chosen),
            "rejected": said(rejected),
            "logp_chosen": of(logps, chosen),
            "logp_rejected": of(logps, rejected),
            "ref_chosen": of(refs, chosen),
            "ref_rejected": of(refs, rejected),
            "chosen_tokens": whole_numbers(lengths[chosen]),
            "rejected_tokens": whole_numbers(lengths[rejected]),
            "margin": numbers(margin),
            "weight": numbers(algorithm.weight * _slope(algorithm, leads(margin, batch, chosen, rejected))),
        }
    )


def _sums(logprobs: Tensor, batch: Batch) -> Float[Tensor, " B"]:
    return torch.where(batch.mask, logprobs, 0.0).sum(1)


def _slope(algorithm: Preference, lead: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """−∂link/∂margin."""
    with torch.enable_grad():
        lead = lead.detach().requires_grad_()
        (slope,) = torch.autograd.grad(algorithm.link(lead, algorithm.reward.beta).sum(), lead)
    return -slope
