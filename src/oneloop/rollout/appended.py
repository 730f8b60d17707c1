"""What was said to rows between their turns, read in one pass behind what their slots hold."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from oneloop.forward.attention import Heads
from oneloop.rollout.cache import Slots, kept


class Appended:
    """Implements `Layout` for several new tokens in each of some slots, whose rows have no shared prompt.

    Args:
        slots: of the rows.
        where: their numbers.
        counts: new tokens of each.
    """

    def __init__(self, slots: Slots, where: Int[Tensor, " R"], counts: Int[Tensor, " R"]) -> None:
        device, first = slots.at.device, slots.filled[where]
        self._slots, self._reach = slots, int((first + counts).max())
        slots.make_room(self._reach)
        offset = torch.arange(int(counts.max()))
        # padding stands on a row's last token, and is written nowhere
        columns = (first[:, None] + offset.minimum(counts[:, None] - 1)).to(device)
        self.positions: Int[Tensor, "R N"] = columns
        rows, places = (offset < counts[:, None]).nonzero(as_tuple=True)
        self._where, self._rows, self._places = where.to(device), rows.to(device), places.to(device)
        self._to = self._where[self._rows], columns[self._rows, self._places]
        self._column = torch.arange(self._reach, device=device)

    def attend(self, heads: Heads) -> Float[Tensor, "R N heads D"]:
        tables = self._slots.tables(heads.layer)
        slot, column = self._to
        for table, new in zip(tables, (heads.key, heads.value), strict=True):
            table[slot, :, column] = kept(new)[self._rows, :, self._places]
        repeats = heads.query.shape[1] // heads.key.shape[1]
        keys, values = (
            table[:, :, : self._reach].index_select(0, self._where).repeat_interleave(repeats, 1) for table in tables
        )
        seen = self._column <= self.positions[..., None]
        if heads.window is not None:
            seen &= self._column > self.positions[..., None] - heads.window
        query = heads.query.to(keys.dtype)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen[:, None], scale=heads.scale)
        return mixed.transpose(1, 2)
