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
    """One response to one prompt, or one episode of several turns."""

    prompt: Sequence[int]
    actions: Sequence[int]
    group: int
    reward: float
    """Of all actions together: placed on the last of them, but for what is `placed`."""
    truncated: bool = False
    logprobs: Sequence[float] | None = None
    """log μ of each action, where the row was sampled."""
    ref_logprobs: Sequence[float] | None = None
    """log π_ref of each action, where it is known already."""
    chosen: Sequence[bool] | None = None
    """Which of `actions` the policy chose, one of them at least; None: all. The others are another role's tokens
    between its turns, or behind the last: read, never trained, and of their log-probs nothing is read."""
    placed: Sequence[tuple[int, float]] = ()
    """What of `reward` earlier actions have: (place in `actions`, reward)."""
    offset: float = 0.0
    """Taken off the row's reward before it is judged: a pair's margin."""
    trained: bool = True
    """False: the row stays in the batch for the record, but no token of it is an action."""


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Rows are padded on the right; masks come from lengths and flags."""
    prompts = torch.tensor([len(row.prompt) for row in rows])
    lengths = prompts + torch.tensor([len(row.actions) for row in rows])
    width = int(lengths.max())
    column = torch.arange(width)
    inside = column < lengths[:, None]
    acted = inside & (column >= prompts[:, None])
    if any(row.chosen is not None for row in rows):
        acted = _filled(inside, chain.from_iterable(_flags(row) for row in rows), torch.bool)
    rewards = torch.zeros(len(rows), width)
    last = lengths - 1 - torch.tensor([_behind(row) for row in rows])
    rewards[torch.arange(len(rows)), last] = torch.tensor([row.reward for row in rows], dtype=rewards.dtype)
    for number, row in enumerate(rows):
        if row.placed:
            _place(rewards[number], len(row.prompt), int(last[number]), row.placed)

    def of_actions(given: Iterable[Sequence[float] | None]) -> Float[Tensor, "B T"] | None:
        known = [numbers for numbers in given if numbers is not None]
        pairs = zip(rows, known, strict=False)
        chosen = chain.from_iterable(_chosen(row, numbers) for row, numbers in pairs)
        return _filled(acted, chosen, torch.float32) if len(known) == len(rows) else None

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
    elif len(row.chosen) != len(row.actions) or (len(row.chosen) and True not in row.chosen):
        # a reward stands on an action; on a masked slot nobody would read it
        raise ValueError(f"{len(row.chosen)} flags for {len(row.actions)} actions: one each, and True for one of them")
    else:
        chosen = row.chosen
    return chain(repeat(False, len(row.prompt)), chosen)


def _behind(row: Row) -> int:
    """Tokens behind the last that the policy chose."""
    return row.chosen[::-1].index(True) if row.chosen and True in row.chosen else 0


def _chosen(row: Row, numbers: Sequence[float]) -> Sequence[float]:
    """Of one number each for a row's `actions`, those of the tokens that the policy chose."""
    if row.chosen is None:
        return numbers
    return [number for number, flag in zip(numbers, row.chosen, strict=True) if flag]


def _place(rewards: Float[Tensor, " T"], prompt: int, last: int, placed: Sequence[tuple[int, float]]) -> None:
    """Rewards of earlier actions out of the sum that stands on the last.

    What stays there is what float32 lacks to the sum: rows of equal sums are equal, however those are spread.
    """
    total = float(rewards[last])
    for place, reward in placed:
        if prompt + place != last:
            rewards[prompt + place] += reward
    rewards[last] = total - float(rewards[:last].sum(dtype=torch.float64))


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
