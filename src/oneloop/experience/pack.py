"""From rows of token ids to a `Batch`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from oneloop.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One response to one prompt."""

    prompt: Sequence[int]
    actions: Sequence[int]
    group: int
    reward: float
    """Placed on the last action."""
    truncated: bool = False
    logprobs: Sequence[float] | None = None
    """log μ of each action, where the row was sampled."""
    ref_logprobs: Sequence[float] | None = None
    """log π_ref of each action, where it is known already."""
    chosen: Sequence[bool] | None = None
    """Which of `actions` the policy chose, the last of them always; None: all. The others are another role's tokens
    between its turns: read, never trained, and without log-probs."""
    offset: float = 0.0
    """Taken off the row's reward before it is judged: a pair's margin."""
    trained: bool = True
    """False: the row stays in the batch for the record, but no token of it is an action."""


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Rows end with their last action and are padded on the right; masks come from lengths and flags."""
    prompts = torch.tensor([len(row.prompt) for row in rows])
    lengths = prompts + torch.tensor([len(row.actions) for row in rows])
    width = int(lengths.max())
    column = torch.arange(width)
    inside = column < lengths[:, None]
    acted = inside & (column >= prompts[:, None])
    if any(row.chosen is not None for row in rows):
        acted = _filled(inside, chain.from_iterable(_flags(row) for row in rows), torch.bool)
    rewards = torch.zeros(len(rows), width)
    rewards[torch.arange(len(rows)), lengths - 1] = torch.tensor([row.reward for row in rows], dtype=rewards.dtype)

    def of_actions(given: Iterable[Sequence[float] | None]) -> Float[Tensor, "B T"] | None:
        known = [numbers for numbers in given if numbers is not None]
        return _filled(acted, chain(*known), torch.float32) if len(known) == len(rows) else None

    return Batch(
        tokens=_filled(inside, chain.from_iterable((*row.prompt, *row.actions) for row in rows), torch.int64),
        mask=acted & torch.tensor([row.trained for row in rows])[:, None],
        group=torch.tensor([row.group for row in rows]),
        rewards=rewards,
        truncated=torch.tensor([row.truncated for row in rows]),
        rollout_logprobs=of_actions(row.logprobs for row in rows),
        ref_logprobs=of_actions(row.ref_logprobs for row in rows),
        lengths=lengths,
        offset=torch.tensor([row.offset for row in rows]) if any(row.offset for row in rows) else None,
    ).to(device)


def _flags(row: Row) -> Iterator[bool]:
    """Of each token of a row: did the policy choose it?"""
    if row.chosen is None:
        chosen: Iterable[bool] = repeat(True, len(row.actions))
    elif len(row.chosen) != len(row.actions) or (len(row.chosen) and not row.chosen[-1]):
        # a reward stands on the last token; on a masked slot nobody would read it
        raise ValueError(f"{len(row.chosen)} flags for {len(row.actions)} actions: one each, and True for the last")
    else:
        chosen = row.chosen
    return chain(repeat(False, len(row.prompt)), chosen)


def _filled(places: Bool[Tensor, "B T"], values: Iterable[float], dtype: torch.dtype) -> Shaped[Tensor, "B T"]:
    """The values in order of rows, 0 elsewhere; through numpy, which takes a list of numbers faster."""
    line = torch.from_numpy(np.fromiter(values, np.float64 if dtype.is_floating_point else np.int64)).to(dtype)
    if len(line) != int(places.sum()):
        raise ValueError(f"{len(line)} values for {int(places.sum())} places: every action needs one")
    return torch.zeros(places.shape, dtype=dtype).masked_scatter_(places, line)


def action_means(values: Float[Tensor, "B T"], batch: Batch) -> list[float | None]:
    """Mean over each row's actions; None for a row without any."""
    totals, counts = torch.where(batch.mask, values, 0.0).sum(1).tolist(), batch.mask.sum(1).tolist()
    return [total / count if count else None for total, count in zip(totals, counts, strict=True)]
