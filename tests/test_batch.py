"""Batch: sizes, shuffles, splits and microbatches lose nothing and mix nothing up."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oneloop.batch import Batch, Size
from toy_models import ragged_batch


def labelled(group, counts):
    """A batch whose every slot tells its row: token = reward = log-prob = the row's number."""
    rows, width = len(group), max([*counts, 1])
    number = torch.arange(rows)[:, None].expand(rows, width)
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    return Batch(
        tokens=number.clone(),
        mask=mask,
        group=torch.tensor(group, dtype=torch.int64),
        rewards=number.double(),
        truncated=torch.tensor([row % 2 == 1 for row in range(rows)]),
        rollout_logprobs=number.double(),
    )


def intact(batch, original):
    """Each row still has its own group, length, mask, reward, log-prob and stop."""
    for i, row in enumerate(batch.tokens[:, 0].tolist()):
        length = int(original.lengths[row])
        assert int(batch.group[i]) == int(original.group[row])
        assert int(batch.lengths[i]) == length
        assert batch.mask[i].sum() == original.mask[row].sum()
        assert batch.rewards[i, :length].tolist() == [float(row)] * length
        assert batch.rollout_logprobs[i, :length].tolist() == [float(row)] * length
        assert bool(batch.truncated[i]) == bool(original.truncated[row])


def test_size_by_hand():
    # 2 + 0 + 3 actions; the row without any is no sequence
    batch = labelled([0, 0, 1], [2, 0, 3])
    assert batch.size == Size(tokens=5, sequences=2)
    assert len(batch) == 3 and batch.num_groups == 2
    assert batch.lengths.tolist() == [2, 0, 3]


def test_lengths_survive_a_mask_that_shrinks():
    batch = labelled([0, 1], [3, 2])
    assert replace(batch, mask=torch.zeros_like(batch.mask)).lengths.tolist() == [3, 2]


@st.composite
def layouts(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    group = [number for number, size in enumerate(sizes) for _ in range(size)]
    counts = draw(st.lists(st.integers(1, 9), min_size=len(group), max_size=len(group)))
    return group, counts


@given(layouts(), st.integers(0, 1000), st.integers(1, 4), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_shuffle_split_and_microbatches_keep_every_row(layout, seed, per_split, max_tokens):
    group, counts = layout
    batch = labelled(group, counts)
    shuffled = batch.shuffle(torch.Generator().manual_seed(seed))
    intact(shuffled, batch)
    seen, minis = [], list(shuffled.split(per_split))
    assert [mini.num_groups for mini in minis[:-1]] == [per_split] * (len(minis) - 1)
    for mini in minis:
        intact(mini, batch)
        for number in mini.group.unique():  # whole groups, in order
            rows = mini.tokens[:, 0][mini.group == number].tolist()
            assert rows == [row for row in range(len(group)) if group[row] == number]
        micros = list(mini.microbatches(max_tokens))
        for micro in micros:
            intact(micro, batch)
            assert micro.tokens.shape[1] == int(micro.lengths.max())  # trimmed
            pair = len(micro) == 2 and micro.num_groups == 1
            assert int(micro.lengths.sum()) <= max_tokens or len(micro) == 1 or pair
            for number in micro.group.unique():
                if group.count(int(number)) == 2:
                    assert int((micro.group == number).sum()) == 2  # a pair is never cut
        assert sum(micro.size.tokens for micro in micros) == mini.size.tokens
        seen += [row for micro in micros for row in micro.tokens[:, 0].tolist()]
    assert sorted(seen) == list(range(len(group)))


def test_a_shuffle_that_forgets_the_rewards_would_show():
    """The mutant: tokens reordered, rewards left behind."""
    batch = labelled([0, 1, 2, 3], [1, 2, 3, 4])
    order = torch.tensor([2, 0, 3, 1])
    with pytest.raises(AssertionError):
        intact(replace(batch.rows(order), rewards=batch.rewards), batch)
    intact(batch.rows(order), batch)


def test_shuffle_depends_on_the_seed_alone():
    batch = labelled(list(range(12)), [1] * 12)
    orders = [batch.shuffle(torch.Generator().manual_seed(seed)).group.tolist() for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != list(range(12))


def test_groups_may_be_scattered():
    batch = labelled([5, 2, 5, 2, 9], [1, 2, 3, 4, 5])
    assert [mini.tokens[:, 0].tolist() for mini in batch.split(1)] == [[0, 2], [1, 3], [4]]


def test_microbatches_hold_so_many_tokens():
    # in order of length with room for 12 tokens: 1 + 2 + 3 + 4 = 10, a fifth would make 15; then 5 + 6 = 11
    batch = labelled(list(range(6)), [6, 3, 1, 4, 2, 5])
    lengths = [micro.lengths.tolist() for micro in batch.microbatches(12)]
    assert lengths == [[1, 2, 3, 4], [5, 6]]
    assert len(list(batch.microbatches(10**6))) == 1
    assert len(list(batch.microbatches(1))) == 6  # a longer row goes alone


def grouped(prompts, counts, group):
    """Rows with given prompt tokens and that many actions."""
    width = max(len(prompt) + count for prompt, count in zip(prompts, counts, strict=True))
    tokens, mask = torch.zeros(len(prompts), width, dtype=torch.int64), torch.zeros(len(prompts), width, dtype=bool)
    for row, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
        tokens[row, len(prompt) : len(prompt) + count] = 7  # equal actions are not a prompt
        mask[row, len(prompt) : len(prompt) + count] = True
    rows = len(prompts)
    return Batch(tokens, mask, torch.tensor(group), torch.zeros(rows, width), torch.zeros(rows, dtype=torch.bool))


def test_what_a_group_shares():
    # the first group agrees on 3 tokens, the second on 4 of 5, the third has one row only
    prompts = [[1, 2, 3], [1, 2, 3], [4, 5, 6, 8, 1], [9, 9], [4, 5, 6, 8, 2]]
    batch = grouped(prompts, [2, 3, 2, 4, 1], [0, 0, 1, 2, 1])
    assert batch.shared.tolist() == [3, 3, 4, 0, 4]
    # 3 tokens of 2 rows would save 3 of 30: not worth a pass of its own
    assert grouped([[1, 2, 3]] * 2, [12, 12], [0, 0]).shared.tolist() == [0, 0]
    # a row without actions shares no more than leaves it one token of its own
    still = replace(batch, mask=torch.zeros_like(batch.mask))
    assert still.shared.tolist()[:2] == [4, 4]


def test_a_shared_prompt_counts_once():
    prompts = [[1, 2, 3, 4]] * 3 + [[5, 6, 7, 8]] * 3
    batch = grouped(prompts, [2] * 6, [0, 0, 0, 1, 1, 1])
    # a group: 4 + 3 · 2 = 10 tokens instead of 18
    assert [len(micro) for micro in batch.microbatches(20)] == [6]
    assert [micro.group.tolist() for micro in batch.microbatches(19)] == [[0, 0, 0], [1, 1, 1]]
    assert [len(micro) for micro in batch.microbatches(9)] == [1] * 6  # a row is 6 tokens; two would be 12


def test_everything_two_dimensional_is_trimmed_alike():
    batch = ragged_batch()
    filled = replace(batch, advantages=batch.rewards, returns=batch.rewards, values=batch.rewards)
    for micro in filled.microbatches(20):
        for field in fields(micro):
            value = getattr(micro, field.name)
            if value is not None and value.dim() == 2:
                assert value.shape == micro.tokens.shape, field.name


def test_an_impossible_split_is_refused():
    with pytest.raises(ValueError, match="at least 1 group"):
        list(labelled([0], [1]).split(0))


def test_an_empty_batch():
    empty = labelled([0, 1], [1, 1]).rows(torch.zeros(0, dtype=torch.int64))
    assert empty.size == Size(0, 0)
    assert len(empty.shuffle(torch.Generator())) == 0
    assert list(empty.split(2)) == list(empty.microbatches(8)) == []
