"""The KV cache of the rows being decoded: a slot for each row, and one copy of a prompt that several rows share.

Nothing is ever concatenated: a token is written to its column of its slot. Columns are added by doubling, and touched
when a row gets there, so that a long limit costs nothing until then. Counts and pointers are kept on the CPU, so that
asking for one never waits for a GPU; `slots`, `prompts` and `lengths` are CPU tensors throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from oneloop.forward.attention import Heads

FIRST_COLUMNS = 128


class Prefilled:
    """Implements `Layout`: runs another one and keeps the keys and values of its packed sequence.

    They are in it as [N, kv_heads, D], by layer; a model's values can be narrower than its keys.
    """

    def __init__(self, sequence) -> None:
        self._sequence = sequence
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def attend(self, heads: Heads) -> Tensor:
        self.keys[heads.layer], self.values[heads.layer] = (
            kept(x)[0].transpose(0, 1) for x in (heads.key, heads.value)
        )
        return self._sequence.attend(heads)


class SharedPrompts:
    """Prompts whose keys and values several slots read: [J, kv_heads, P, D] by layer, P the longest."""

    def __init__(self) -> None:
        self.lengths = torch.zeros(0, dtype=torch.int64)
        self.changes = 0
        """Of the tables and pointers that a pass reads."""
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def add(self, prefilled: Prefilled, index: Int[Tensor, "J P"], lengths: Int[Tensor, " J"]) -> None:
        """`index`: of each prompt's tokens in the packed sequence, padded with anything."""
        self.changes += 1
        for mine, theirs in ((self._keys, prefilled.keys), (self._values, prefilled.values)):
            for layer, sequence in theirs.items():
                new = sequence[index].transpose(1, 2)
                mine[layer] = _stacked(mine[layer], new) if layer in mine else new.contiguous()
        self.lengths = torch.cat([self.lengths, lengths])

    def keep(self, prompts: Int[Tensor, " J"]) -> None:
        """Drop the others."""
        self.changes += 1
        self.lengths = self.lengths[prompts]
        longest = int(self.lengths.max()) if len(prompts) else 0
        for table in (self._keys, self._values):
            for layer in table:
                table[layer] = table[layer][:, :, :longest].index_select(0, prompts.to(table[layer].device))

    def point(self, prompt_of: Int[Tensor, " S"]) -> None:
        """Which prompt each slot reads. Slots of one prompt are gathered, so that its keys are read once for them."""
        self.changes += 1
        count, device = len(self.lengths), next(iter(self._keys.values())).device
        sizes = torch.bincount(prompt_of, minlength=count)
        order = prompt_of.argsort(stable=True)
        member = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[prompt_of[order]]
        width = int(sizes.max())
        back = torch.empty_like(order)
        back[order] = prompt_of[order] * width + member
        members = torch.zeros(count * width, dtype=torch.int64)
        members[back[order]] = order
        self._back, self._members = back.to(device), members.to(device)
        self._lengths = self.lengths[prompt_of].to(device)

    def scores(self, layer: int, query: Float[Tensor, "S kv rep D"]) -> Float[Tensor, "S kv rep P"]:
        keys = self._keys[layer]
        return self._spread(torch.matmul(self._gathered(query, len(keys)), keys.transpose(2, 3)), query)

    def mixed(self, layer: int, weights: Float[Tensor, "S kv rep P"]) -> Float[Tensor, "S kv rep D"]:
        values = self._values[layer]
        return self._spread(torch.matmul(self._gathered(weights, len(values)), values), weights)

    def hidden_from(
        self, positions: Int[Tensor, " S"], window: int | None, dtype: torch.dtype
    ) -> Float[Tensor, "S 1 1 P"]:
        """0 where a slot at `positions` sees the column, −∞ where not."""
        column = torch.arange(next(iter(self._keys.values())).shape[2], device=positions.device)
        seen = column < self._lengths[:, None]
        seen = seen if window is None else seen & (column > positions[:, None] - window)
        return _additive(seen, dtype)

    def _gathered(self, of_slots: Tensor, prompts: int) -> Float[Tensor, "J kv M D"]:
        """[S, kv, rep, D] by slot to [J, kv, members · rep, D] by prompt."""
        kv, rep, last = of_slots.shape[1:]
        taken = of_slots.index_select(0, self._members).view(prompts, -1, kv, rep, last)
        return taken.transpose(1, 2).reshape(prompts, kv, -1, last)

    def _spread(self, of_prompts: Float[Tensor, "J kv M D"], like: Tensor) -> Tensor:
        kv, rep = like.shape[1:3]
        split = of_prompts.view(of_prompts.shape[0], kv, -1, rep, of_prompts.shape[-1]).transpose(1, 2)
        return split.reshape(-1, kv, rep, of_prompts.shape[-1]).index_select(0, self._back)


class Slots:
    """Implements `Layout` for one new token in each slot.

    Args:
        count: slots.
        most_columns: columns that a slot can ever need.
        shared: prompts that stand before the slots' own columns; None: each slot holds its prompt itself.
        stride: columns are attended to in multiples of this. With more than 1, passes that follow each other have the
            same shapes, and differ in nothing but the numbers in their tensors.
    """

    def __init__(
        self,
        count: int,
        most_columns: int,
        device: torch.device,
        shared: SharedPrompts | None = None,
        stride: int = 1,
    ) -> None:
        self.filled = torch.zeros(count, dtype=torch.int64)
        self._idle, self._parked = (torch.zeros(count, dtype=torch.bool) for _ in range(2))
        self._before = torch.zeros_like(self.filled)  # tokens of the prompt that are not in the slot itself
        # `filled` and `positions` where the tables are, always in the same place
        self._column, self.at = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
        self._rows = torch.arange(count, device=device)
        self._most, self._shared, self._stride, self._changes = most_columns, shared, stride, 0
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._longest = self._reach = 0  # tokens of the longest row, and columns that are attended to
        self.even = True
        """Whether all rows are equally long, so that nothing has to be hidden from any."""
        self._known = 0  # columns that hold numbers in every row
        self._masks: dict[tuple[int | None, int], tuple[bool, Tensor, Tensor | None]] = {}

    @property
    def layout(self) -> tuple[int, ...]:
        """Another one with every change of an address or a shape that a pass reads."""
        return self._changes, self._reach, 0 if self._shared is None else self._shared.changes

    @property
    def positions(self) -> Int[Tensor, " S"]:
        """Of the next token in each row."""
        return self._before + self.filled

    def insert(self, slots: Int[Tensor, " A"], prefilled: Prefilled, index: Tensor, lengths: Tensor) -> None:
        """Prompts into slots that hold them themselves; `index` as for `SharedPrompts.add`."""
        self._reserve(index.shape[1], prefilled)
        self._fill_up_to(index.shape[1], written=len(slots) == len(self.filled))
        where = slots.to(index.device)
        if bool((slots.diff() == 1).all()):  # side by side, as all are at first: a view, which is copied into faster
            where = slice(int(slots[0]), int(slots[-1]) + 1)
        for mine, theirs in ((self._keys, prefilled.keys), (self._values, prefilled.values)):
            for layer, sequence in theirs.items():
                new = sequence.index_select(0, index.flatten()).view(*index.shape, *sequence.shape[1:])
                mine[layer][where, :, : index.shape[1]] = new.transpose(1, 2)
        self.filled[slots], self._idle[slots] = lengths, False

    def link(self, slots: Int[Tensor, " A"], lengths: Int[Tensor, " A"]) -> None:
        """Slots begin after prompts of these lengths, which stand in the shared table."""
        self.filled[slots], self._before[slots], self._idle[slots] = 0, lengths, False

    def release(self, slots: Bool[Tensor, " S"]) -> None:
        """Nobody reads these any more: they follow the longest of the others, and so never walk past the columns."""
        self._idle |= slots
        self._parked &= ~slots
        self._before.masked_fill_(slots, 0)

    def begin(self) -> None:
        """Before the forward pass of a step: room for its column."""
        self._longest = int(self.filled.masked_fill(self._idle, 0).max()) + 1
        self.filled.masked_fill_(self._idle, self._longest - 1)
        self._reach = -(-self._longest // self._stride) * self._stride
        self._column.copy_(self.filled)
        self.at.copy_(self.positions)
        self.even = bool((self.filled == self._reach - 1).all()) and self._stride == 1
        if self._keys:
            self._reserve(self._reach)
        self._fill_up_to(self._reach, written=self.even)
        self.forget_masks()

    def forget_masks(self) -> None:
        """The next pass makes its own."""
        self._masks.clear()

    def end(self) -> None:
        self.filled += ~self._parked

    def park(self, slots: Int[Tensor, " A"]) -> None:
        """Their rows wait: what a pass writes for one is written over by its next token."""
        self._parked[slots] = True

    def make_room(self, columns: int) -> None:
        """Tables of so many columns, with numbers in all of them."""
        self._reserve(columns)
        self._fill_up_to(columns, written=False)

    def tables(self, layer: int) -> tuple[Float[Tensor, "S kv C D"], Float[Tensor, "S kv C E"]]:
        """Keys and values."""
        return self._keys[layer], self._values[layer]

    def go_on(self, slots: Int[Tensor, " A"], counts: Int[Tensor, " A"]) -> None:
        """So many tokens were written behind what the slots held, whose rows wait no more."""
        self.filled[slots] += counts
        self._parked[slots] = False

    def keep(self, slots: Int[Tensor, " L"]) -> None:
        """These, in this order, become the first `L` slots; the others are dropped."""
        self._changes += 1
        self.filled, self._before, self._idle, self._parked = (
            x[slots] for x in (self.filled, self._before, self._idle, self._parked)
        )
        self._rows, self._column, self.at = (x[: len(slots)] for x in (self._rows, self._column, self.at))
        moved = (slots != torch.arange(len(slots))).nonzero()[:, 0]
        to, since = moved.to(self._rows.device), slots[moved].to(self._rows.device)
        used = int(self.filled.max())
        for table in (self._keys, self._values):
            for layer, rows in table.items():
                columns = rows[:, :, :used]
                columns.index_copy_(0, to, columns.index_select(0, since))
                table[layer] = rows[: len(slots)]

    def grow(self, count: int) -> None:
        """More slots behind the others, which nobody reads yet."""
        self._changes += 1
        old = len(self.filled)
        self.filled, self._before, self._column, self.at = (
            lengthened(x, count) for x in (self.filled, self._before, self._column, self.at)
        )
        self._idle = torch.cat([self._idle, torch.ones(count - old, dtype=torch.bool)])
        self._parked = lengthened(self._parked, count)
        self._rows = torch.arange(count, device=self._column.device)
        for table in (self._keys, self._values):
            for layer, rows in table.items():
                table[layer] = rows.new_empty(count, *rows.shape[1:])
                table[layer][:old, :, : self._known] = rows[:, :, : self._known]
                table[layer][old:, :, : self._known] = 0

    def attend(self, heads: Heads) -> Float[Tensor, "S 1 heads D"]:
        layer, (count, kv, _, width) = heads.layer, heads.key.shape
        new_keys, new_values = kept(heads.key)[:, :, 0], kept(heads.value)[:, :, 0]
        if layer not in self._keys:
            self._allocate(layer, new_keys, new_values, self._reach)
        keys, values = self._keys[layer], self._values[layer]
        if self.even:
            keys[:, :, self._reach - 1], values[:, :, self._reach - 1] = new_keys, new_values
        else:
            keys[self._rows, :, self._column], values[self._rows, :, self._column] = new_keys, new_values
        scale = width**-0.5 if heads.scale is None else heads.scale
        query = heads.query.reshape(count * kv, -1, width)
        keys, values = (table.flatten(0, 1)[:, : self._reach] for table in (keys, values))
        hides, own_mask, shared_mask = self._hidden(heads.window, kv, query.dtype)
        own = torch.baddbmm(own_mask, query, keys.mT, beta=int(hides), alpha=scale)
        if self._shared is None or shared_mask is None:
            mixed = torch.bmm(own.softmax(-1), values)
        else:
            prompt = self._shared.scores(layer, query.view(count, kv, -1, width))
            prompt = torch.add(shared_mask, prompt, alpha=scale)
            weights = torch.cat([prompt, own.view(*prompt.shape[:3], -1)], -1).softmax(-1)
            of_prompt, of_own = weights.split([prompt.shape[-1], self._reach], -1)
            of_prompt = self._shared.mixed(layer, of_prompt).flatten(0, 1)
            mixed = torch.baddbmm(of_prompt, of_own.flatten(0, 1), values)
        return mixed.view(count, 1, -1, mixed.shape[-1])

    def _hidden(self, window: int | None, kv: int, dtype: torch.dtype) -> tuple[bool, Tensor, Tensor | None]:
        """What to add to the scores of a slot's own columns, if anything is to be added, and of its prompt's: 0 or −∞.
        Made once a step."""
        if (window, kv) not in self._masks:
            column = torch.arange(self._reach, device=self._column.device)
            own = torch.zeros(1, 1, 1, dtype=dtype, device=column.device)
            hides = not self.even or (window is not None and window < self._reach)
            if hides:
                seen = column <= self._column[:, None]
                seen = seen if window is None else seen & (column > self._column[:, None] - window)
                own = _additive(seen, dtype).expand(-1, kv, -1, -1).flatten(0, 1)
            shared = None
            if self._shared is not None:
                shared = self._shared.hidden_from(self.at, window, dtype)
            self._masks[window, kv] = (hides, own, shared)
        return self._masks[window, kv]

    def _fill_up_to(self, columns: int, *, written: bool) -> None:
        """No column before this may hold what the allocator left: a hidden one has weight 0, and 0 · NaN is not 0.

        Args:
            written: all rows write the new ones themselves.
        """
        if not written and columns > self._known:
            for table in (*self._keys.values(), *self._values.values()):
                table[:, :, self._known : columns] = 0
        self._known = max(self._known, columns)

    def _reserve(self, columns: int, like: Prefilled | None = None) -> None:
        if like is not None and not self._keys:
            for layer in like.keys:
                self._allocate(layer, like.keys[layer], like.values[layer], columns)
        capacity = next(iter(self._keys.values())).shape[2]
        if columns <= capacity:
            return
        self._changes += 1
        wanted = min(max(2 * capacity, columns), max(self._most, columns))
        for table in (self._keys, self._values):
            for layer, old in table.items():
                table[layer] = _widened(old, wanted, self._known)

    def _allocate(self, layer: int, key: Float[Tensor, "N kv D"], value: Float[Tensor, "N kv E"], columns: int) -> None:
        self._changes += 1
        capacity = min(max(columns, FIRST_COLUMNS), max(self._most, columns))
        for table, like in ((self._keys, key), (self._values, value)):
            table[layer] = like.new_empty(len(self._rows), like.shape[1], capacity, like.shape[2])
            table[layer][:, :, : self._known] = 0


def lengthened(x: Tensor, count: int) -> Tensor:
    """With rows of zeros at the end."""
    return torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])


def kept(x: Tensor) -> Tensor:
    """In the type that attention reads: rotation leaves float32 keys, which autocast would turn at every step anew."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _additive(seen: Tensor, dtype: torch.dtype) -> Float[Tensor, "S 1 1 C"]:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)[:, None, None]


def _widened(table: Float[Tensor, "S kv C D"], columns: int, known: int) -> Float[Tensor, "S kv W D"]:
    wide = table.new_empty(*table.shape[:2], columns, table.shape[3])
    wide[:, :, :known] = table[:, :, :known]
    return wide


def _stacked(old: Tensor, new: Tensor) -> Float[Tensor, "J kv P D"]:
    columns = max(old.shape[2], new.shape[2])
    return torch.cat([F.pad(table, (0, 0, 0, columns - table.shape[2])) for table in (old, new)])


def padded_index(starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Int[Tensor, "J P"]:
    """Where each prompt's tokens stand in the packed sequence; padding points at its last token."""
    offset = torch.arange(max(lengths)).minimum(torch.tensor(lengths)[:, None] - 1)
    return (torch.tensor(starts)[:, None] + offset).to(device)
