"""Rows end to end without padding, the prompt of a group once, and attention that never crosses rows.

    sequence:  tree₁ · tree₂ · … · prompt₁ · prompt₂ · … · own₁ · own₂ · own₃ · …    (own: what a row does not share)

A segment is one such piece. A token sees the tokens before it in its segment, and the whole segment that its own one
continues. A tree is a short prompt and what continues it, one behind the other. Segments of like length, and trees
of like size, are attended to together, so that no [N, N] mask is ever built.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from oneloop.batch import Batch
from oneloop.forward import flex
from oneloop.forward.attention import Heads
from oneloop.forward.buckets import Bucket, attended, buckets
from oneloop.forward.gather import gathered
from oneloop.forward.segments import ordered
from oneloop.forward.visibility import Segmentation, sees


@dataclass(frozen=True, eq=False)
class Packed:
    """Implements `oneloop.forward.attention.Layout` for a batch.

    Args:
        tokens, positions: the packed sequence, as one row.
        index: where in the packed sequence token t of row b stands; padding stands at 0.
        buckets: what is attended to together; none: a kernel runs over all of it at once.
        segmentation: who sees whom.
    """

    tokens: Int[Tensor, "1 N"]
    positions: Int[Tensor, "1 N"]
    index: Int[Tensor, "B T"]
    buckets: tuple[Bucket, ...]
    segmentation: Segmentation
    masks: dict[int | None, BlockMask] = field(default_factory=dict, repr=False)
    """By window, made once for all layers."""

    def attend(self, heads: Heads) -> Float[Tensor, "1 N heads D"]:
        if heads.asking is not None:
            return self._attend_from(heads, heads.asking)
        if not self.buckets:
            if heads.window not in self.masks:
                self.masks[heads.window] = flex.block_mask(self.segmentation, heads.window)
            return flex.attend(heads, self.masks[heads.window])
        query, key, value = (x.squeeze(0).transpose(0, 1) for x in (heads.query, heads.key, heads.value))
        queries = gathered(query, [bucket.of_queries for bucket in self.buckets])
        keys, values = (gathered(x, [bucket.of_keys for bucket in self.buckets]) for x in (key, value))
        parts = zip(self.buckets, queries, keys, values, strict=True)
        mixed = [bucket.attend(q, k, v, heads) for bucket, q, k, v in parts]
        return (mixed[0] if len(mixed) == 1 else torch.cat(mixed))[None]

    def _attend_from(self, heads: Heads, asking: Int[Tensor, " M"]) -> Float[Tensor, "1 M heads D"]:
        """From some of the tokens: in one call where that compares fewer pairs than the buckets do."""
        query, count = heads.query.transpose(1, 2), len(self.segmentation.segment)
        if len(asking) * count <= sum(bucket.pairs for bucket in self.buckets):
            seen = sees(self.segmentation, asking[:, None], torch.arange(count, device=asking.device), heads.window)
            return attended(heads, seen).transpose(1, 2)
        of_all = query.new_zeros(1, count, *query.shape[2:]).index_copy(1, asking, query)
        return self.attend(heads._replace(query=of_all.transpose(1, 2), asking=None)).index_select(1, asking)


def packed(batch: Batch, one_kernel: bool = False) -> Packed:
    """The packed sequence of a batch. Every token of every row stands in it; padding does not.

    Args:
        one_kernel: attend to the whole sequence at once, which GPUs do faster.
    """
    lengths, shared = batch.lengths.tolist(), batch.shared.tolist()
    order = ordered(batch.group.tolist(), lengths, shared, trees=not one_kernel)
    segments = order.segments
    counts = torch.tensor([segment.length for segment in segments], dtype=torch.int64)
    starts = counts.cumsum(0) - counts
    rows = torch.tensor([segment.row for segment in segments], dtype=torch.int64).repeat_interleave(counts)
    positions = _spans(torch.tensor([segment.begin for segment in segments], dtype=torch.int64), counts)
    index = torch.zeros(batch.tokens.shape, dtype=torch.int64)
    index[rows, positions] = torch.arange(len(rows))
    continuing = [segment for segment in segments if segment.prompt >= 0]
    before = torch.tensor([segment.begin for segment in continuing], dtype=torch.int64)
    column = _spans(torch.zeros_like(before), before)
    of_row = torch.tensor([segment.row for segment in continuing], dtype=torch.int64).repeat_interleave(before)
    index[of_row, column] = _spans(starts[[segment.prompt for segment in continuing]], before)
    device = batch.tokens.device
    own = torch.arange(len(segments)).repeat_interleave(counts)
    prompts = torch.tensor([segment.prompt for segment in segments], dtype=torch.int64).repeat_interleave(counts)
    rows, positions = rows.to(device), positions.to(device)
    segmentation = Segmentation(own.to(device), prompts.to(device), positions)
    return Packed(
        tokens=batch.tokens[rows, positions][None],
        positions=positions[None],
        index=index.to(device),
        buckets=() if one_kernel else tuple(buckets(order, starts, segmentation)),
        segmentation=segmentation,
    )


def _spans(begins: Int[Tensor, " S"], counts: Int[Tensor, " S"]) -> Int[Tensor, " N"]:
    """begin, begin + 1, … of each segment, end to end."""
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total) + (begins - (ends - counts)).repeat_interleave(counts)
