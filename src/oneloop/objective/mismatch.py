"""Prompts with the answers to other prompts: what KTO measures the policy's general drift on."""

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oneloop.batch import Batch


def partners(batch: Batch) -> Int[Tensor, " B"]:
    """For each row the number of the row whose answer its prompt is given; −1 where there is none.

    The next row with another prompt, in the order of groups and around the end: never the row itself, in a batch of
    any size, and whatever order the rows stand in. A row without an action neither gives nor takes an answer.
    """
    starts, lengths = _starts(batch).tolist(), batch.lengths.tolist()
    rows = [row[:length] for row, length in zip(batch.tokens.tolist(), lengths, strict=True)]
    prompts = [tuple(row[:start]) for row, start in zip(rows, starts, strict=True)]
    group, acts = batch.group.tolist(), batch.mask.any(1).tolist()
    order = sorted((row for row in range(len(rows)) if acts[row]), key=lambda row: (group[row], rows[row]))
    found = torch.full((len(rows),), -1, device=batch.mask.device)
    for place, row in enumerate(order):
        others = (*order[place + 1 :], *order[:place])
        found[row] = next((other for other in others if prompts[other] != prompts[row]), -1)
    return found


def mismatched(batch: Batch, partner: Int[Tensor, " B"]) -> Batch | None:
    """The prompts of a batch, each with the answer of row `partner`; None where no row has a partner.

    Cut to the longest row of the batch, which the model is known to read; a row that has no action left is left out.
    """
    longest, starts = int(batch.lengths.max()), _starts(batch).tolist()
    tokens, masks = [], []
    for row, other in enumerate(partner.tolist()):
        if other < 0 or starts[row] >= longest:
            continue
        start, stop = starts[other], int(batch.lengths[other])
        prompt, acted = batch.tokens[row, : starts[row]], batch.mask[other, start:stop]
        tokens.append(torch.cat([prompt, batch.tokens[other, start:stop]])[:longest])
        masks.append(torch.cat([torch.zeros_like(prompt, dtype=torch.bool), acted])[:longest])
    if not tokens:
        return None
    lengths = torch.tensor([len(row) for row in tokens], device=partner.device)
    mask = pad_sequence(masks, batch_first=True)
    return Batch(
        tokens=pad_sequence(tokens, batch_first=True),
        mask=mask,
        group=torch.arange(len(tokens), device=partner.device),
        rewards=torch.zeros_like(mask, dtype=batch.rewards.dtype),
        truncated=torch.zeros_like(mask[:, 0]),
        lengths=lengths,
    )


def _starts(batch: Batch) -> Int[Tensor, " B"]:
    """Tokens before each row's first action: its prompt."""
    return torch.where(batch.mask.any(1), batch.mask.long().argmax(1), batch.lengths)
