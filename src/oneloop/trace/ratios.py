"""How far the policy moved within a step: log ρ of every trained token, and counts of ρ by sign of the advantage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.batch import Batch
from oneloop.trace.columns import HALF, flags, lists, nested, passes, whole_numbers
from oneloop.trace.passes import Passes

if TYPE_CHECKING:  # slow to load
    import pyarrow

EDGES = (0.0, *(k / 100 for k in range(50, 151)), float("inf"))
"""Of the bins of ρ: [0, 0.50), [0.50, 0.51) … [1.49, 1.50), [1.50, ∞). Every usual 1 ± ε is one."""
MOST_NUMBERS = 2**18
"""Ratios of a step above which its tokens are left out and only the counts stay."""


def log_ratios(batch: Batch, seen: Passes) -> Float[Tensor, "K B T"]:
    """log π_θ − log π_old of each pass; exactly 0 where π_old is the pass itself."""
    old = seen.old_logprobs(batch)
    return seen.logprobs if old is None else seen.logprobs - old


def ratio_table(step: int, batch: Batch, seen: Passes, samples: Int[Tensor, " B"]) -> pyarrow.Table:
    """A row for each row of the batch: those without a pass have an empty `update`."""
    import pyarrow  # noqa: PLC0415

    mask, visited, old = batch.mask, seen.seen, seen.old_logprobs(batch)
    whole = int((visited.sum(0) * mask.sum(1)).sum()) <= MOST_NUMBERS
    known = None if batch.old_logprobs is not None else visited.any(0)
    return pyarrow.table(
        {
            "step": whole_numbers([step] * len(batch)),
            "group": whole_numbers(batch.group),
            "sample": whole_numbers(samples),
            "truncated": flags(batch.truncated),
            "update": passes(seen.update, visited),
            "advantage": lists(batch.advantages if whole else None, mask),
            "log_ratio": nested(log_ratios(batch, seen) if whole else None, mask, visited, HALF),
            "ref_gap": lists(_minus(old, batch.ref_logprobs) if whole else None, mask, HALF, known),
            "mismatch": lists(_minus(old, _other(batch, old)) if whole else None, mask, HALF, known),
        }
    )


def _minus(old: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if old is None or other is None else old - other


def _other(batch: Batch, old: Tensor | None) -> Tensor | None:
    """log μ, where π_old is not simply that."""
    sampled = batch.rollout_logprobs
    if sampled is None or old is None or torch.equal(old[batch.mask], sampled[batch.mask]):
        return None
    return sampled


def histogram(batch: Batch, seen: Passes, surrogate: object) -> dict[str, Any]:
    """Counts of ρ for each update, by the sign of the advantage: {bin: tokens}, empty bins left out.

    `epsilon` is how far below and above 1 the surrogate's band reaches; None where that side, or all of it, is open.
    """
    assert batch.advantages is not None
    log_ratio = log_ratios(batch, seen)
    counts: dict[str, list[dict[str, int]]] = {"positive": [], "negative": [], "zero": []}
    sign = torch.sign(batch.advantages)
    for update in range(seen.count):
        taken = (seen.update == update)[:, :, None] & batch.mask  # [K, B, T]
        signs = sign.expand_as(log_ratio)[taken]
        values = log_ratio[taken]
        for name, which in (("positive", 1), ("negative", -1), ("zero", 0)):
            counts[name].append(_binned(values[signs == which]))
    low, high = getattr(surrogate, "low", None), getattr(surrogate, "high", None)
    return {"updates": seen.count, "epsilon": None if low is high is None else [low, high], **counts}


def _binned(log_ratio: Tensor) -> dict[str, int]:
    """Of numbers that are numbers: a forward pass that diverged has none."""
    ratio = np.exp(np.minimum(log_ratio.double().numpy(), 700.0))
    bins = np.searchsorted(EDGES, ratio[~np.isnan(ratio)], side="right") - 1
    numbers, counts = np.unique(np.minimum(bins, len(EDGES) - 2), return_counts=True)
    return {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}
