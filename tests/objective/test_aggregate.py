"""Weights of a mean: by hand, and as the printed double sum."""

import pytest
import torch

from oneloop.batch import Size
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean

AGGREGATES = [TokenMean(), SequenceMean(), FixedLength(tokens=10)]


def slow_mean(aggregate, losses, lengths):
    """The papers' double sums over a list of rows."""
    if isinstance(aggregate, TokenMean):
        return sum(sum(row) for row in losses) / sum(lengths)
    present = sum(length > 0 for length in lengths)
    if isinstance(aggregate, SequenceMean):
        return sum(sum(row) / length for row, length in zip(losses, lengths, strict=True) if length) / present
    return sum(sum(row) for row in losses) / (present * aggregate.tokens)


def test_by_hand():
    # two rows with 1 and 3 actions: 4 tokens, 2 sequences
    mask = torch.tensor([[False, True, False, False], [True, True, False, True]])
    size = Size(4, 2)
    assert TokenMean()(mask, size).tolist() == [[0, 0.25, 0, 0], [0.25, 0.25, 0, 0.25]]
    sixth = torch.tensor(1 / 6).item()
    assert SequenceMean()(mask, size).tolist() == [[0, 0.5, 0, 0], [sixth, sixth, 0, sixth]]
    assert FixedLength(8)(mask, size).tolist() == [[0, 1 / 16, 0, 0], [1 / 16, 1 / 16, 0, 1 / 16]]


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=repr)
def test_weighted_sum_is_the_printed_mean(aggregate):
    rng = torch.Generator().manual_seed(0)
    mask = torch.rand(7, 9, generator=rng) < 0.5
    mask[3] = False  # a row without actions is no sequence
    loss = torch.randn(7, 9, generator=rng)
    rows = [loss[i][mask[i]].tolist() for i in range(7)]
    lengths = [len(row) for row in rows]
    size = Size(sum(lengths), sum(length > 0 for length in lengths))
    value = float((aggregate(mask, size) * loss).sum())
    assert value == pytest.approx(slow_mean(aggregate, rows, lengths), rel=1e-5)


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=repr)
def test_pieces_add_up_because_the_size_is_the_whole_step_s(aggregate):
    rng = torch.Generator().manual_seed(1)
    mask, loss = torch.rand(6, 5, generator=rng) < 0.6, torch.randn(6, 5, generator=rng)
    mask[:, 0] = True
    size = Size(int(mask.sum()), 6)
    whole = (aggregate(mask, size) * loss).sum()
    pieces = [(aggregate(mask[rows], size) * loss[rows]).sum() for rows in (slice(0, 1), slice(1, 3), slice(3, 6))]
    torch.testing.assert_close(sum(pieces), whole, rtol=1e-5, atol=1e-7)
    mutant = 0.0  # each piece divides by its own size, and the means are averaged
    for rows in (slice(0, 1), slice(1, 3), slice(3, 6)):
        own = Size(int(mask[rows].sum()), len(mask[rows]))
        mutant += float((aggregate(mask[rows], own) * loss[rows]).sum()) / 3
    assert mutant != pytest.approx(float(whole), rel=1e-2)


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=repr)
def test_a_step_without_actions_weighs_nothing(aggregate):
    mask = torch.zeros(2, 3, dtype=torch.bool)
    assert aggregate(mask, Size(0, 0)).tolist() == [[0.0] * 3] * 2


def test_fixed_length_must_be_positive():
    with pytest.raises(ValueError, match=r"FixedLength\(tokens=0\)"):
        FixedLength(0)
