"""Rows end to end without padding, the prompt of a group once, and attention that never crosses rows.

    line:  prompt₁ · prompt₂ · … · own₁ · own₂ · own₃ · …        (own: what a row does not share)

A segment is one such piece. A token sees the tokens before it in its segment, and the whole segment that its own one
continues. Segments of like length are attended to together, so that no [line, line] mask is ever built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from oneloop.batch import Batch
from oneloop.model import flex
from oneloop.model.attention import Heads
from oneloop.model.pieces import Places, gathered

MOST_WASTE = 1.25
"""Segments share a call while the padded area stays within this factor of their tokens."""


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one row, or of the prompt that several rows share."""

    row: int
    """A row that has these tokens."""
    begin: int
    """Its first token here."""
    length: int
    prompt: int = -1
    """Number of the segment that it continues; −1: none."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Segments that one call attends to: S of them, Q queries each that may see K keys, shared tokens first.

    Args:
        start, stop: their tokens on the line.
        queries: line positions of the padded queries; None: the segments as they are, all of one length.
        keys: line positions of the padded keys; None: the queries' own.
        kept: which of the S·Q outputs belong to a token of the segments; None: all.
    """

    start: int
    stop: int
    count: int
    queries: Int[Tensor, " SQ"] | None
    keys: Int[Tensor, " SK"] | None
    kept: Int[Tensor, " N"] | None

    @property
    def of_queries(self) -> Places:
        return slice(self.start, self.stop) if self.queries is None else self.queries

    @property
    def of_keys(self) -> Places:
        return self.of_queries if self.keys is None else self.keys

    def visible(self, queries: int, keys: int, window: int | None, device: torch.device) -> Bool[Tensor, "Q K"] | None:
        """Which keys each query sees; None: just those up to itself. Padding stands behind every real key."""
        if queries == keys and (window is None or window >= keys):
            return None
        query = torch.arange(keys - queries, keys, device=device)[:, None]
        key = torch.arange(keys, device=device)
        return (key <= query) if window is None else (key <= query) & (key > query - window)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Float[Tensor, "N heads D"]:
        """Of the pieces at `of_queries` to those at `of_keys`."""
        q, k, v = (x.view(self.count, -1, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
        seen = self.visible(q.shape[2], k.shape[2], heads.window, q.device)
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=seen is None, scale=heads.scale, enable_gqa=grouped
        )
        flat = out.transpose(1, 2).flatten(0, 1)
        return flat if self.kept is None else flat.index_select(0, self.kept)


@dataclass(frozen=True, eq=False)
class Packed:
    """Implements `oneloop.model.attention.Layout` for a batch.

    Args:
        tokens, positions: the line, as one row.
        place: where on the line token t of row b stands; padding stands at 0.
        line: for the kernel that runs over all of it at once; None: attend bucket by bucket.
    """

    tokens: Int[Tensor, "1 N"]
    positions: Int[Tensor, "1 N"]
    place: Int[Tensor, "B T"]
    buckets: tuple[Bucket, ...]
    line: flex.Line | None
    masks: dict[int | None, BlockMask] = field(default_factory=dict, repr=False)
    """By window, made once for all layers."""

    def attend(self, heads: Heads) -> Float[Tensor, "1 N heads D"]:
        if self.line is not None:
            if heads.window not in self.masks:
                self.masks[heads.window] = flex.block_mask(self.line, heads.window)
            return flex.attend(heads, self.masks[heads.window])
        query, key, value = (x[0].transpose(0, 1) for x in (heads.query, heads.key, heads.value))
        queries = gathered(query, [bucket.of_queries for bucket in self.buckets])
        keys, values = (gathered(x, [bucket.of_keys for bucket in self.buckets]) for x in (key, value))
        parts = zip(self.buckets, queries, keys, values, strict=True)
        mixed = [bucket.attend(q, k, v, heads) for bucket, q, k, v in parts]
        return (mixed[0] if len(mixed) == 1 else torch.cat(mixed))[None]


def packed(batch: Batch, one_kernel: bool = False) -> Packed:
    """The line of a batch. Every token of every row has a place on it; padding has none.

    Args:
        one_kernel: attend to the whole line at once, which GPUs do faster.
    """
    lengths, shared = batch.lengths.tolist(), batch.shared.tolist()
    segments = _segments(batch.group.tolist(), lengths, shared)
    counts = torch.tensor([segment.length for segment in segments], dtype=torch.int64)
    starts = counts.cumsum(0) - counts
    rows = torch.tensor([segment.row for segment in segments], dtype=torch.int64).repeat_interleave(counts)
    positions = _spans(torch.tensor([segment.begin for segment in segments], dtype=torch.int64), counts)
    place = torch.zeros(batch.tokens.shape, dtype=torch.int64)
    place[rows, positions] = torch.arange(len(rows))
    continuing = [segment for segment in segments if segment.prompt >= 0]
    before = torch.tensor([segment.begin for segment in continuing], dtype=torch.int64)
    column = _spans(torch.zeros_like(before), before)
    of_row = torch.tensor([segment.row for segment in continuing], dtype=torch.int64).repeat_interleave(before)
    place[of_row, column] = _spans(starts[[segment.prompt for segment in continuing]], before)
    device = batch.tokens.device
    line = None
    if one_kernel:
        own = torch.arange(len(segments)).repeat_interleave(counts)
        prompts = torch.tensor([segment.prompt for segment in segments], dtype=torch.int64).repeat_interleave(counts)
        line = flex.Line(own.to(device), prompts.to(device), positions.to(device))
    rows, positions = rows.to(device), positions.to(device)
    return Packed(
        tokens=batch.tokens[rows, positions][None],
        positions=positions[None],
        place=place.to(device),
        buckets=() if line else tuple(_bucket(segments, starts, members, device) for members in _alike(segments)),
        line=line,
    )


def _segments(groups: Sequence[int], lengths: Sequence[int], shared: Sequence[int]) -> list[Segment]:
    """Prompts that are shared, then what is left of each row; both by length, so that neighbours are alike."""
    first: dict[int, int] = {}
    for row, group in enumerate(groups):
        if shared[row]:
            first.setdefault(group, row)
    prompts = sorted(first.items(), key=lambda item: shared[item[1]])
    number = {group: place for place, (group, _) in enumerate(prompts)}
    segments = [Segment(row, 0, shared[row]) for _, row in prompts]
    own = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: (shared[row], lengths[row]))
    return segments + [
        Segment(row, shared[row], lengths[row] - shared[row], number[groups[row]] if shared[row] else -1) for row in own
    ]


def _alike(segments: Sequence[Segment]) -> list[list[int]]:
    """Runs of neighbours that one call takes: as many shared tokens, lengths that rise, little padding."""
    runs: list[list[int]] = []
    tokens = 0
    for place, segment in enumerate(segments):
        if runs:
            last, area = segments[place - 1], segment.length * (len(runs[-1]) + 1)
            alike = segment.begin == last.begin and (segment.prompt < 0) == (last.prompt < 0)
            if alike and last.length <= segment.length and area <= MOST_WASTE * (tokens + segment.length):
                runs[-1].append(place)
                tokens += segment.length
                continue
        runs.append([place])
        tokens = segment.length
    return runs


def _bucket(segments: Sequence[Segment], starts: Tensor, members: list[int], device: torch.device) -> Bucket:
    picked = [segments[place] for place in members]
    width, shared = picked[-1].length, picked[0].begin
    begins = starts[members]
    inside = torch.arange(width) < torch.tensor([segment.length for segment in picked])[:, None]
    # a padded slot repeats the line's first token: nobody sees it, and its own output is dropped
    queries = torch.where(inside, begins[:, None] + torch.arange(width), 0)
    keys = None
    if shared:
        before = starts[[segment.prompt for segment in picked]][:, None] + torch.arange(shared)
        keys = torch.cat([before, queries], 1)
    even = bool(inside.all())
    return Bucket(
        start=int(begins[0]),
        stop=int(begins[-1]) + width,
        count=len(picked),
        queries=None if even else queries.flatten().to(device),
        keys=None if keys is None else keys.flatten().to(device),
        kept=None if even else inside.flatten().nonzero()[:, 0].to(device),
    )


def _spans(begins: Int[Tensor, " S"], counts: Int[Tensor, " S"]) -> Int[Tensor, " N"]:
    """begin, begin + 1, … of each segment, end to end."""
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total) + (begins - (ends - counts)).repeat_interleave(counts)
