"""Batches of environment steps. D numbers of an observation, A of a continuous action, N steps in a flat batch.

A row of `Pieces` is what one environment lived through of one episode in one step of the loop, so that advantages see
time; a row of `Transitions` is one environment step, so that a minibatch of 64 is 64 of those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.batch import Batch, Size


@dataclass(frozen=True, eq=False, kw_only=True)
class Transitions(Batch):
    """Environment steps, one a row and each a group of its own: T = 1. None of them is padding.

    Args:
        observations: s_t, before `tokens`.
        actions: a_t where it is continuous; a discrete one is the token.
    """

    observations: Float[Tensor, "N D"]
    actions: Float[Tensor, "N A"] | None = None

    @property
    def size(self) -> Size:
        return Size(len(self), len(self))

    @property
    def num_groups(self) -> int:
        return len(self)

    def shuffle(self, rng: torch.Generator) -> Transitions:
        return self.rows(torch.randperm(len(self), generator=rng))

    def split(self, groups: int) -> Iterator[Transitions]:
        if groups < 1:
            raise ValueError(f"split({groups}): a minibatch needs at least 1 transition")
        for start in range(0, len(self), groups):
            yield self._between(start, start + groups)

    def microbatches(self, max_tokens: int) -> Iterator[Transitions]:
        return self.split(max_tokens)

    def rows(self, index: Tensor) -> Transitions:
        return replace(self, **{name: value[index] for name, value in self._tensors()})

    def trimmed(self) -> Transitions:
        return self

    def _between(self, start: int, end: int) -> Transitions:
        if start == 0 and end >= len(self):
            return self
        return replace(self, **{name: value[start:end] for name, value in self._tensors()})


@dataclass(frozen=True, eq=False, kw_only=True)
class Pieces(Batch):
    """Rows: what an environment lived through of one episode in one step of the loop, right padded.

    `truncated` where the time limit, or the step of the loop, cut the episode: it would have gone on.

    Args:
        observations: s_t, before `tokens[:, t]`.
        last: the observation after a row's last action, from which a truncated row bootstraps.
        actions: where they are continuous; discrete ones are the tokens.
    """

    observations: Float[Tensor, "B T D"]
    last: Float[Tensor, "B D"]
    actions: Float[Tensor, "B T A"] | None = None

    @property
    def num_groups(self) -> int:
        """Of the minibatches, whose groups are transitions."""
        return int(self.mask.sum())

    def shuffle(self, rng: torch.Generator) -> Transitions:
        """Its transitions in random order: with their advantages, they need their neighbours no more."""
        return self.transitions.shuffle(rng)

    def split(self, groups: int) -> Iterator[Transitions]:
        return self.transitions.split(groups)

    @cached_property
    def transitions(self) -> Transitions:
        """The actions that have a loss, one a row."""
        kept = self.mask
        steps = {name: value[kept][:, None] for name, value in self._tensors() if name in _PER_ACTION}
        rows = kept.nonzero()[:, 0]
        return Transitions(
            **steps,
            mask=torch.ones(len(rows), 1, dtype=torch.bool),
            group=torch.arange(len(rows)),
            truncated=self.truncated[rows],
            lengths=torch.ones(len(rows), dtype=torch.int64),
            place=self.place[rows],
            observations=self.observations[kept],
            actions=None if self.actions is None else self.actions[kept],
        )

    def trimmed(self) -> Pieces:
        width = max(int(self.lengths.max()), 1) if len(self) else 0
        wide = {name: value[:, :width] for name, value in self._tensors() if value.dim() > 1 and name != "last"}
        return replace(self, **wide)


_PER_ACTION = (
    "tokens", "rewards", "rollout_logprobs", "old_logprobs", "ref_logprobs", "values", "advantages", "returns",
)  # fmt: skip
"""Tensors of [B, T]."""
