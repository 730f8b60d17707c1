"""Rewards of whole responses, groups worth training on, and the correction for a different sampler."""

from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oneloop.errors import ConfigError
from oneloop.objective.correction import TruncatedImportance, logprob_gap
from oneloop.objective.select import MixedOutcome, OverlongFilter
from oneloop.objective.shaping import OverlongPenalty, last_action


def slow_penalty(length, max_length, margin):
    if length <= max_length - margin:
        return 0.0
    if length < max_length:
        return ((max_length - margin) - length) / margin
    return -1.0


def test_overlong_penalty_by_hand():
    # L_max 20, cache 4: free up to 16, then −¼ a token, −1 from 20 on
    lengths = torch.tensor([1, 16, 17, 18, 19, 20, 21, 500])
    rewards = OverlongPenalty(20, 4)(torch.ones(8), lengths)
    assert rewards.tolist() == [1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 100))
def test_overlong_penalty_is_the_three_cases(max_length, margin, length):
    if margin > max_length:
        with pytest.raises(ConfigError, match="0 < margin ≤ max_length"):
            OverlongPenalty(max_length, margin)
        return
    reward = OverlongPenalty(max_length, margin)(torch.tensor([0.25]), torch.tensor([length]))
    assert reward.item() == pytest.approx(0.25 + slow_penalty(length, max_length, margin), abs=1e-6)


def test_last_action():
    mask = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]]).bool()
    assert last_action(mask).int().tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("rewards", "kept"),
    [
        ([1.0, 0.0, 1.0], True),
        ([0.0, 0.0], False),
        ([1.0, 1.0, 1.0], False),
        ([0.1] * 7, False),
        ([0.35] * 7 + [0.95], True),
        ([1.0], False),
        ([], False),
        ([None, None], False),
        ([1.0, None], False),  # what could not be scored is no second outcome
        ([1.0, None, 0.5], True),
        ([1.0, float("nan"), 1.0], False),
    ],
)
def test_mixed_outcome(rewards, kept):
    assert MixedOutcome()(rewards) is kept


def test_overlong_filter_masks_truncated_rows():
    mask, truncated = torch.tensor([[True, False], [True, True]]), torch.tensor([False, True])
    assert OverlongFilter()(mask, truncated).tolist() == [[True, False], [False, False]]


def test_truncated_importance_is_the_capped_ratio():
    rng = torch.Generator().manual_seed(0)
    old, rollout = -torch.rand(2, 3, 5, generator=rng, dtype=torch.float64) * 4
    weights = TruncatedImportance(cap=1.7)(old, rollout)
    wanted = [[min(exp(float(old[i, t] - rollout[i, t])), 1.7) for t in range(5)] for i in range(3)]
    torch.testing.assert_close(weights, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)
    assert float(weights.max()) == 1.7 and float(weights.min()) < 1
    assert torch.equal(TruncatedImportance()(old, old), torch.ones_like(old))


def test_truncated_importance_is_a_constant_and_finite():
    old = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    weights = TruncatedImportance(cap=2.0)(old, torch.tensor([[-90.0, 88.0]]))
    assert not weights.requires_grad
    assert weights[0, 0].item() == 2.0 and 0 < weights[0, 1].item() < 1e-8


def test_logprob_gap_by_hand():
    # |−1 + 1.5| = 0.5 and |−2 + 1.9| = 0.1 on two actions; the masked slot is not looked at
    old, rollout = torch.tensor([[-1.0, -2.0, torch.nan]]), torch.tensor([[-1.5, -1.9, 0.0]])
    mask = torch.tensor([[True, True, False]])
    gap = {name: float(value) for name, value in logprob_gap(old, rollout, mask, mask / 2).items()}
    assert gap == pytest.approx({"rollout/logprob_gap": 0.3, "rollout/logprob_gap/max": 0.5}, rel=1e-5)
