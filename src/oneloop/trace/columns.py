"""Tensors as columns of lists: a list of numbers for each row of a batch, one number for each of its actions.

Columns are made from their buffers: `pyarrow.array` would load pandas into the process that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

if TYPE_CHECKING:  # slow to load
    import pyarrow

INT, HALF, SINGLE = torch.int32, torch.float16, torch.float32


def whole_numbers(values: Sequence[int] | Tensor) -> pyarrow.Array:
    return _flat(torch.as_tensor(values), INT)


def flags(values: Bool[Tensor, " B"]) -> pyarrow.Array:
    import pyarrow  # noqa: PLC0415

    return pyarrow.Array.from_buffers(pyarrow.bool_(), len(values), [None, _bits(values)])


def words(values: Sequence[str | None]) -> pyarrow.Array:
    """Parquet holds valid Unicode only: a lone surrogate, from a broken token, becomes its escape."""
    import pyarrow  # noqa: PLC0415

    texts = [b"" if value is None else value.encode("utf-8", "backslashreplace") for value in values]
    ends = pyarrow.py_buffer(_ends(torch.tensor([len(text) for text in texts], dtype=torch.int64)))
    there = _bits(torch.tensor([value is not None for value in values]))
    return pyarrow.StringArray.from_buffers(len(texts), ends, pyarrow.py_buffer(b"".join(texts)), there)


def numbers(values: Sequence[float | None] | Tensor | None, rows: int = 0) -> pyarrow.Array:
    """A column of doubles; all of it missing where `values` is None, and missing where a number is NaN or None."""
    import pyarrow  # noqa: PLC0415

    if values is None:
        return pyarrow.nulls(rows, pyarrow.float64())
    if not isinstance(values, Tensor):
        values = torch.tensor([torch.nan if value is None else value for value in values], dtype=torch.float64)
    doubles = pyarrow.py_buffer(values.double().numpy())
    return pyarrow.Array.from_buffers(pyarrow.float64(), len(values), [_bits(~values.isnan()), doubles])


def lists(
    values: Shaped[Tensor, "B T"] | None,
    mask: Bool[Tensor, "B T"],
    dtype: torch.dtype = SINGLE,
    known: Bool[Tensor, " B"] | None = None,
) -> pyarrow.Array:
    """The values of each row's actions; missing for rows that are not `known`, and everywhere without `values`."""
    import pyarrow  # noqa: PLC0415

    if values is None:
        return pyarrow.nulls(len(mask), pyarrow.list_(_type(dtype)))
    missing = None if known is None or bool(known.all()) else flags(~known)
    return pyarrow.ListArray.from_arrays(_offsets(mask.sum(1)), _flat(values[mask], dtype), mask=missing)


def spelled(tokens: Int[Tensor, " N"], lengths: Int[Tensor, " B"], spell: Callable[[int], str]) -> pyarrow.Array:
    """The rows' tokens, end to end, as a list of texts for each row; each distinct token is spelled once."""
    import pyarrow  # noqa: PLC0415

    ids = tokens.tolist()
    texts = {token: spell(token) for token in set(ids)}
    return pyarrow.ListArray.from_arrays(_offsets(lengths), words([texts[token] for token in ids]))


def passes(values: Int[Tensor, "K B"], seen: Bool[Tensor, "K B"]) -> pyarrow.Array:
    """A whole number for each pass that saw a row."""
    return lists(values.T, seen.T, INT)


def nested(
    values: Shaped[Tensor, "K B T"] | None,
    mask: Bool[Tensor, "B T"],
    seen: Bool[Tensor, "K B"],
    dtype: torch.dtype = SINGLE,
) -> pyarrow.Array:
    """For each pass that saw a row, the values of the row's actions."""
    import pyarrow  # noqa: PLC0415

    if values is None:
        return pyarrow.nulls(len(mask), pyarrow.list_(pyarrow.list_(_type(dtype))))
    by_row = seen.T  # [B, K]
    flat = values.transpose(0, 1)[by_row[:, :, None] & mask[:, None, :]]
    tokens = mask.sum(1)[:, None].expand_as(by_row)[by_row]
    inner = pyarrow.ListArray.from_arrays(_offsets(tokens), _flat(flat, dtype))
    return pyarrow.ListArray.from_arrays(_offsets(by_row.sum(1)), inner)


def _flat(values: Tensor, dtype: torch.dtype) -> Any:
    import pyarrow  # noqa: PLC0415

    numbers = values.to(dtype).contiguous().numpy()
    return pyarrow.Array.from_buffers(_type(dtype), len(numbers), [None, pyarrow.py_buffer(numbers)])


def _type(dtype: torch.dtype) -> Any:
    import pyarrow  # noqa: PLC0415

    kinds = {INT: pyarrow.int32(), HALF: pyarrow.float16(), SINGLE: pyarrow.float32(), torch.int8: pyarrow.int8()}
    return kinds[dtype]


def _offsets(lengths: Tensor) -> Any:
    return _flat(torch.from_numpy(_ends(lengths)), INT)


def _ends(lengths: Tensor) -> np.ndarray:
    """Where each of so many pieces ends, with a 0 in front."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(INT).numpy()


def _bits(values: Bool[Tensor, " N"]) -> Any:
    import pyarrow  # noqa: PLC0415

    return pyarrow.py_buffer(np.packbits(values.numpy(), bitorder="little"))
