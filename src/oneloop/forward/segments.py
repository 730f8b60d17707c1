"""The order of a packed sequence: which tokens of which rows stand one behind the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

TREE_TOKENS, MEAN_CONTINUATION = 128, 8
"""A prompt and what continues it are attended to as a tree while they have at most so many tokens, and each
continuation so many on average. On a CPU the calls for such rows cost more than their arithmetic:
`benchmarks/single/tree_attention.py`."""


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


class Order(NamedTuple):
    """Trees, prompts that are shared, what is left of each row; each by length, so that neighbours are alike."""

    segments: list[Segment]
    trees: list[int]
    """How many segments each tree has; they come first."""


class _Sharing(NamedTuple):
    """Rows of a group that share a prompt."""

    rows: list[int]
    prompt: int
    """Tokens that they share."""
    own: int
    """Tokens that they do not, of all of them."""

    @property
    def tokens(self) -> int:
        return self.prompt + self.own

    @property
    def is_tree(self) -> bool:
        return self.tokens <= TREE_TOKENS and self.own <= MEAN_CONTINUATION * len(self.rows)


def ordered(groups: Sequence[int], lengths: Sequence[int], shared: Sequence[int], *, trees: bool) -> Order:
    """The segments of rows that begin with `shared` tokens of their group.

    Args:
        trees: keep what continues a short prompt behind it, where that is short too.
    """
    sharing = _sharing(groups, lengths, shared)
    close = sorted((one for one in sharing if trees and one.is_tree), key=lambda one: one.tokens)
    apart = sorted((one for one in sharing if not (trees and one.is_tree)), key=lambda one: one.prompt)
    segments: list[Segment] = []
    before: dict[int, int] = {}

    def add_prompt(one: _Sharing) -> None:
        before.update(dict.fromkeys(one.rows, len(segments)))
        segments.append(Segment(one.rows[0], 0, one.prompt))

    def add_own(rows: Iterable[int]) -> None:
        segments.extend(Segment(r, shared[r], lengths[r] - shared[r], before.get(r, -1)) for r in rows)

    for one in close:
        add_prompt(one)
        add_own(one.rows)
    left = set(range(len(lengths))) - before.keys()
    for one in apart:
        add_prompt(one)
        left |= set(one.rows)
    add_own(sorted((r for r in left if lengths[r]), key=lambda r: (shared[r], lengths[r], r)))
    return Order(segments, [1 + len(one.rows) for one in close])


def _sharing(groups: Sequence[int], lengths: Sequence[int], shared: Sequence[int]) -> list[_Sharing]:
    rows_of: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        if shared[row]:
            rows_of.setdefault(group, []).append(row)
    return [_Sharing(rows, shared[rows[0]], sum(lengths[r] - shared[r] for r in rows)) for rows in rows_of.values()]
