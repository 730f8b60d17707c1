"""Tensors as columns of lists: a list of numbers for each row of a batch, one number for each of its actions."""

from __future__ import annotations

from collections.abc import Sequence
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


def words(values: Sequence[str | None]) -> pyarrow.Array:
    """Parquet holds valid Unicode only: a lone surrogate, from a broken token, becomes its escape."""
    import pyarrow  # noqa: PLC0415

    return pyarrow.array([None if value is None else _valid(value) for value in values], pyarrow.string())


def numbers(values: Sequence[float | None] | Tensor | None, rows: int = 0) -> pyarrow.Array:
    """A column of doubles; all of it missing where `values` is None, and missing where a number is NaN."""
    import pyarrow  # noqa: PLC0415

    if values is None:
        return pyarrow.nulls(rows, pyarrow.float64())
    plain = values.tolist() if isinstance(values, Tensor) else values
    return pyarrow.array([None if value is None or value != value else value for value in plain], pyarrow.float64())


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
    missing = None if known is None or bool(known.all()) else pyarrow.array((~known).numpy())
    return pyarrow.ListArray.from_arrays(_offsets(mask.sum(1)), _flat(values[mask], dtype), mask=missing)


def lists_of_words(values: Sequence[Sequence[str]]) -> pyarrow.Array:
    import pyarrow  # noqa: PLC0415

    flat = words([text for row in values for text in row])
    return pyarrow.ListArray.from_arrays(_offsets(torch.tensor([len(row) for row in values])), flat)


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

    return pyarrow.array(values.to(dtype).numpy(), _type(dtype))


def _type(dtype: torch.dtype) -> Any:
    import pyarrow  # noqa: PLC0415

    kinds = {INT: pyarrow.int32(), HALF: pyarrow.float16(), SINGLE: pyarrow.float32(), torch.int8: pyarrow.int8()}
    return kinds[dtype]


def _offsets(lengths: Tensor) -> Any:
    import pyarrow  # noqa: PLC0415

    return pyarrow.array(np.concatenate([[0], lengths.cumsum(0).numpy()]).astype(np.int32))


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
