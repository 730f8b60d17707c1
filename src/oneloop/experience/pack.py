"""From rows of token ids to a `Batch`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
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
    trained: bool = True
    """False: the row stays in the batch for the record, but no token of it is an action."""


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Rows end with their last action and are padded on the right; masks come from lengths."""
    prompts = torch.tensor([len(row.prompt) for row in rows])
    lengths = prompts + torch.tensor([len(row.actions) for row in rows])
    width = int(lengths.max())
    column = torch.arange(width)
    trained = torch.tensor([row.trained for row in rows])
    mask = trained[:, None] & (column >= prompts[:, None]) & (column < lengths[:, None])
    rewards = torch.zeros(len(rows), width)
    rewards[torch.arange(len(rows)), lengths - 1] = torch.tensor([row.reward for row in rows], dtype=rewards.dtype)
    sampled = [[0.0] * len(row.prompt) + list(row.logprobs) for row in rows if row.logprobs is not None]
    return Batch(
        tokens=_padded([[*row.prompt, *row.actions] for row in rows], width, torch.int64),
        mask=mask,
        group=torch.tensor([row.group for row in rows]),
        rewards=rewards,
        truncated=torch.tensor([row.truncated for row in rows]),
        rollout_logprobs=_padded(sampled, width, torch.float32) if len(sampled) == len(rows) else None,
        lengths=lengths,
    ).to(device)


def _padded(rows: Sequence[Sequence[float | int]], width: int, dtype: torch.dtype) -> Shaped[Tensor, "B T"]:
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)


def action_means(values: Float[Tensor, "B T"], batch: Batch) -> list[float | None]:
    """Mean over each row's actions; None for a row without any."""
    totals, counts = torch.where(batch.mask, values, 0.0).sum(1).tolist(), batch.mask.sum(1).tolist()
    return [total / count if count else None for total, count in zip(totals, counts, strict=True)]
