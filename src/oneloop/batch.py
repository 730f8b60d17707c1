"""The tensor half of the vocabulary.

Letters in shapes: B rows, T tokens, V vocabulary, H hidden, N tokens of many rows end to end, P pairs.
`x[:, t]` always describes `tokens[:, t]`; right padding only; masks come from lengths and roles, never from
token values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Size(NamedTuple):
    """What a mean divides by: counted once for the whole optimizer step, whichever rank computes what."""

    tokens: int
    """Action tokens."""
    sequences: int
    """Rows with at least one action token."""
    unseen: int = 0
    """Those of `tokens` that no forward pass of the update sees, because their rows are inert."""
    halves: int = 0
    """In a batch of pairs, those of which one row alone has an action: an empty answer is still half of a pair."""

    @property
    def seen(self) -> int:
        """Action tokens that the update's forward passes see: what a statistic of the passes divides by."""
        return self.tokens - self.unseen

    @property
    def pairs(self) -> float:
        """Pairs of the step, an empty answer in them or not."""
        return (self.sequences + self.halves) / 2


class PolicyOutput(NamedTuple):
    """What one forward pass says about a batch."""

    logprobs: Float[Tensor, "B T"]
    """log π_θ(tokens[:, t] | tokens[:, <t]) in nats, at the sampling temperature."""
    entropy: Float[Tensor, "B T"] | None = None
    """H[π_θ(· | tokens[:, <t])] in nats; None where nobody asked for it."""
    values: Float[Tensor, "B T"] | None = None
    """V(s_t): the state before tokens[:, t]."""
    scores: Float[Tensor, " B"] | None = None
    """A reward model's output, read after the last token."""
    final_values: Float[Tensor, " B"] | None = None
    """V after the last token of a row: what a truncated row bootstraps from."""


class Loss(NamedTuple):
    """A scalar to differentiate, and what to log about it."""

    value: Float[Tensor, ""]
    stats: dict[str, Tensor]
    """Already weighted by the size of the whole step: they add up over microbatches (`*/max` takes the maximum)."""

    def counted(self, mine: bool) -> Loss:
        """Itself; or, of a microbatch that is another rank's, the same graph with nothing to add anywhere."""
        if mine:
            return self
        none = {name: value if name.endswith("/max") else torch.zeros_like(value) for name, value in self.stats.items()}
        return Loss(0.0 * self.value, none)


def added(total: Mapping[str, Tensor], stats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Statistics of one more microbatch: sums, and of `*/max` the larger."""
    both = {
        name: torch.maximum(total[name], value) if name.endswith("/max") else total[name] + value
        for name, value in stats.items()
        if name in total
    }
    return {**total, **stats, **both}


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of groups. A demonstration is a group of one with reward 1; a preference pair is a group of two with
    rewards 1 and 0; a policy-gradient method samples a group of G.

    Args:
        tokens: prompt, actions and observations in order, right padded with anything.
        mask: True where the policy chose the token, end token included.
        group: equal numbers form a group.
        rewards: per token, usually 0 except at the last action; ignored on masked slots.
        truncated: cut by the length limit (neither an end token nor the environment stopped it).
        rollout_logprobs: log μ of the sampled tokens, nats.
        old_logprobs, ref_logprobs, values, advantages, returns: filled by `Algorithm.prepare`.
        inert: rows that cannot move the weights, also told by `Algorithm.prepare`: their loss is 0 and has no gradient.
            They count in the loss's denominators like every row, and no pass of the update is spent on them.
        lengths: tokens of each row without padding; left out, a row ends with its last action.
        offset: taken off a row's reward before it is judged: what a pair's chosen answer must lead by, KTO's z_ref.
        place: each row's number in the step's batch, which it keeps through shuffles, minibatches and microbatches;
            left out, the order of the rows.
    """

    tokens: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    group: Int[Tensor, " B"]
    rewards: Float[Tensor, "B T"]
    truncated: Bool[Tensor, " B"]
    rollout_logprobs: Float[Tensor, "B T"] | None = None
    old_logprobs: Float[Tensor, "B T"] | None = None
    ref_logprobs: Float[Tensor, "B T"] | None = None
    values: Float[Tensor, "B T"] | None = None
    advantages: Float[Tensor, "B T"] | None = None
    returns: Float[Tensor, "B T"] | None = None
    inert: Bool[Tensor, " B"] | None = None
    lengths: Int[Tensor, " B"] = None  # pyright: ignore[reportAssignmentType]  # filled below, never None after
    offset: Float[Tensor, " B"] | None = None
    place: Int[Tensor, " B"] = None  # pyright: ignore[reportAssignmentType]  # filled below, never None after

    def __post_init__(self) -> None:
        if self.lengths is None:
            position = torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)
            object.__setattr__(self, "lengths", (self.mask * position).amax(1))
        if self.place is None:
            object.__setattr__(self, "place", torch.arange(len(self), device=self.mask.device))

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def size(self) -> Size:
        """Action tokens, rows with at least one, and action tokens of the rows that `microbatches` leaves out."""
        tokens, acts = int(self.mask.sum()), self.mask.any(1)
        unseen = tokens - int(self._moving().mask.sum())
        return Size(tokens, int(acts.sum()), unseen, 0 if bool(acts.all()) else self._halves(acts.tolist()))

    def _halves(self, acts: Sequence[bool]) -> int:
        members = self._members()
        return sum(acts[a] != acts[b] for a, b in members) if all(len(rows) == 2 for rows in members) else 0

    @property
    def num_groups(self) -> int:
        return len(self._members())

    def rows(self, index: Int[Tensor, " R"]) -> Batch:
        """The rows at `index`, in that order."""
        return replace(self, **{name: value[index] for name, value in self._tensors()})

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, **{name: value.to(device) for name, value in self._tensors()})

    def shuffle(self, rng: torch.Generator) -> Batch:
        """Groups in random order; the rows of a group stay together and in order."""
        groups = self._members()
        order = torch.randperm(len(groups), generator=rng).tolist()
        return self._taken(groups[i] for i in order) if groups else self

    def split(self, groups: int) -> Iterator[Batch]:
        """Minibatches of that many whole groups; the last one may be smaller, and nothing is dropped."""
        if groups < 1:
            raise ValueError(f"split({groups}): a minibatch needs at least 1 group")
        members = self._members()
        for start in range(0, len(members), groups):
            yield self._taken(members[start : start + groups])

    def _taken(self, groups: Iterable[Sequence[int]]) -> Batch:
        return self.rows(torch.tensor([row for rows in groups for row in rows], device=self.mask.device))

    def microbatches(self, max_tokens: int) -> Iterator[Batch]:
        """The rows that are not inert, by `microbatch_rows`, each trimmed to its longest row."""
        moving = self._moving()
        for rows in moving.microbatch_rows(max_tokens):
            yield moving.rows(rows).trimmed()

    def _moving(self) -> Batch:
        """Without the inert rows. Where all are, the shortest stays: its gradient of 0 is what the optimizer gets."""
        if self.inert is None or not bool(self.inert.any()):
            return self
        rows = (~self.inert).nonzero()[:, 0]
        return self.rows(rows if len(rows) else self.lengths.argmin()[None])

    def microbatch_rows(self, max_tokens: int) -> Iterator[Int[Tensor, " R"]]:
        """Row numbers of microbatches of at most `max_tokens` tokens; padding not counted, a shared prompt once.

        Groups that fit stay whole, so that their prompt is computed once; larger ones are cut into rows, pairs never.
        A longer row, or pair, goes alone. In order of length.
        """
        lengths, shared = self.lengths.tolist(), self.shared.tolist()

        def cost(rows: list[int]) -> int:
            return shared[rows[0]] + sum(lengths[row] - shared[row] for row in rows)

        units = [
            unit
            for rows in self._members()
            for unit in ([rows] if len(rows) == 2 or cost(rows) <= max_tokens else [[row] for row in rows])
        ]
        pending: list[int] = []
        tokens = 0
        for unit in sorted(units, key=lambda rows: max(lengths[row] for row in rows)):
            if pending and tokens + cost(unit) > max_tokens:
                yield torch.tensor(pending, device=self.mask.device)
                pending, tokens = [], 0
            pending += unit
            tokens += cost(unit)
        if pending:
            yield torch.tensor(pending, device=self.mask.device)

    @property
    def shared(self) -> Int[Tensor, " B"]:
        """Tokens at the start of each row that all rows of its group have in common, before anyone's first action.

        A forward pass needs to compute them once for the group. 0 where that would save less than an eighth.
        """
        leader, count = self._leaders()
        inside = torch.arange(1, self.tokens.shape[1] + 1, device=self.mask.device) < self.lengths[:, None]
        same = (self.tokens == self.tokens[leader]) & ~self.mask & inside
        common = same.long().cumprod(1).sum(1)
        common = common.scatter_reduce(0, leader, common, "amin")[leader]
        total = torch.zeros_like(common).scatter_add(0, leader, self.lengths)[leader]
        return torch.where(8 * common * (count - 1) >= total, common, 0)

    def _leaders(self) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
        """The first row of each row's group, and how many rows the group has."""
        first: dict[int, int] = {}
        leader = [first.setdefault(group, row) for row, group in enumerate(self.group.tolist())]
        rows = torch.tensor(leader, device=self.group.device, dtype=torch.int64)
        return rows, torch.zeros_like(rows).scatter_add(0, rows, torch.ones_like(rows))[rows]

    def trimmed(self) -> Batch:
        """Without the padding columns that no row needs."""
        width = max(int(self.lengths.max()), 1) if len(self) else 0
        return replace(self, **{name: value[:, :width] for name, value in self._tensors() if value.dim() == 2})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [(f.name, value) for f in fields(self) if (value := getattr(self, f.name)) is not None]

    def _members(self) -> list[list[int]]:
        """Row numbers of each group, in order of first appearance."""
        members: dict[int, list[int]] = {}
        for row, group in enumerate(self.group.tolist()):
            members.setdefault(group, []).append(row)
        return list(members.values())
