"""Segments of like length, and trees of like size, that attention takes in one call."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from oneloop.forward.attention import Heads
from oneloop.forward.gather import Index
from oneloop.forward.segments import Order
from oneloop.forward.visibility import Segmentation, sees

MOST_WASTE = 1.25
"""They share a call while the padded area stays within this factor of their tokens."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Segments, or trees, that one call attends to: S of them, Q queries each that may see K keys.

    Args:
        start, stop: where their tokens stand in the packed sequence.
        queries: indices of the padded queries; None: the segments as they are, all of one length.
        keys: indices of the padded keys, shared tokens first; None: the queries' own.
        kept: which of the S·Q outputs belong to a token of the segments; None: all.
        tokens: of trees: says who sees whom. None: a query sees the shared tokens and those up to itself.
    """

    start: int
    stop: int
    count: int
    queries: Int[Tensor, " SQ"] | None
    keys: Int[Tensor, " SK"] | None
    kept: Int[Tensor, " N"] | None
    tokens: Segmentation | None = None

    def to(self, device: torch.device) -> Bucket:
        moved = {name: x.to(device) for name in ("queries", "keys", "kept") if (x := getattr(self, name)) is not None}
        return replace(self, **moved)

    @property
    def pairs(self) -> int:
        """Queries and keys that are compared, as if each query saw all of its segment."""
        queries = self.stop - self.start if self.queries is None else len(self.queries)
        return queries * (queries if self.keys is None else len(self.keys)) // self.count

    @property
    def of_queries(self) -> Index:
        return slice(self.start, self.stop) if self.queries is None else self.queries

    @property
    def of_keys(self) -> Index:
        return self.of_queries if self.keys is None else self.keys

    def visible(
        self, queries: int, keys: int, window: int | None, device: torch.device
    ) -> Bool[Tensor, "*_ Q K"] | None:
        """Which keys each query sees; None: just those up to itself. Nobody sees padding."""
        if self.tokens is not None:
            flat = torch.arange(self.start, self.stop, device=device) if self.queries is None else self.queries
            index = flat.view(self.count, queries)
            return sees(self.tokens, index[:, :, None], index[:, None], window)[:, None]
        if queries == keys and (window is None or window >= keys):
            return None
        query = torch.arange(keys - queries, keys, device=device)[:, None]
        key = torch.arange(keys, device=device)
        return (key <= query) if window is None else (key <= query) & (key > query - window)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Float[Tensor, "N heads D"]:
        """Of the parts at `of_queries` to those at `of_keys`."""
        q, k, v = (x.view(self.count, -1, *x.shape[1:]).transpose(1, 2) for x in (query, key, value))
        seen = self.visible(q.shape[2], k.shape[2], heads.window, q.device)
        flat = attended(heads._replace(query=q, key=k, value=v), seen).transpose(1, 2).flatten(0, 1)
        return flat if self.kept is None else flat.index_select(0, self.kept)


def attended(heads: Heads, seen: Bool[Tensor, "*_ Q K"] | None) -> Float[Tensor, "S heads Q D"]:
    """Each query's mix of the values that it sees; None: of those up to its own."""
    query, key, value = heads.query, heads.key, heads.value
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=seen,
        is_causal=seen is None,
        scale=heads.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def buckets(order: Order, starts: Int[Tensor, " S"], tokens: Segmentation) -> Iterator[Bucket]:
    """In the order of the packed sequence, in which the segments begin at `starts`."""
    device = tokens.segment.device
    bounds = list(accumulate(order.trees, initial=0))
    sizes = [sum(segment.length for segment in order.segments[a:b]) for a, b in pairwise(bounds)]
    for members in _alike(sizes, [None] * len(sizes)):
        begins = starts[[bounds[index] for index in members]]
        # a padded slot repeats the first token of the largest tree: a stranger to those that have padding
        yield _bucket(begins, [sizes[index] for index in members], begins[-1], tokens=tokens).to(device)
    rest = order.segments[bounds[-1] :]
    kinds = [(segment.begin, segment.prompt < 0) for segment in rest]
    for members in _alike([segment.length for segment in rest], kinds):
        picked = [rest[index] for index in members]
        before = None
        if picked[0].begin:
            before = starts[[segment.prompt for segment in picked]][:, None] + torch.arange(picked[0].begin)
        # a padded slot stands behind all that a query sees
        begins, lengths = starts[bounds[-1] :][members], [segment.length for segment in picked]
        yield _bucket(begins, lengths, starts[0], before).to(device)


def _bucket(
    begins: Int[Tensor, " S"],
    lengths: Sequence[int],
    stranger: Int[Tensor, ""],
    before: Int[Tensor, "S P"] | None = None,
    tokens: Segmentation | None = None,
) -> Bucket:
    """Stretches of the packed sequence of these lengths, one behind the other, the longest last.

    Args:
        stranger: the token that stands in padded slots.
        before: the tokens that each stretch continues.
    """
    inside = torch.arange(lengths[-1]) < torch.tensor(lengths)[:, None]
    queries = torch.where(inside, begins[:, None] + torch.arange(lengths[-1]), stranger)
    even = bool(inside.all())
    return Bucket(
        start=int(begins[0]),
        stop=int(begins[-1]) + lengths[-1],
        count=len(lengths),
        queries=None if even else queries.flatten(),
        keys=None if before is None else torch.cat([before, queries], 1).flatten(),
        kept=None if even else inside.flatten().nonzero()[:, 0],
        tokens=tokens,
    )


def _alike(lengths: Sequence[int], kinds: Sequence[Hashable]) -> list[list[int]]:
    """Runs of neighbours that one call takes: of one kind, lengths that rise, little padding."""
    runs: list[list[int]] = []
    tokens = 0
    for index, (length, kind) in enumerate(zip(lengths, kinds, strict=True)):
        alike = runs and kind == kinds[index - 1] and lengths[index - 1] <= length
        if alike and length * (len(runs[-1]) + 1) <= MOST_WASTE * (tokens + length):
            runs[-1].append(index)
            tokens += length
        else:
            runs.append([index])
            tokens = length
    return runs
