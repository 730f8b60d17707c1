"""Pairs: the rewards a policy implies, and the functions of their margin."""

from math import exp, log

import pytest
import torch

from oneloop.batch import Batch, PolicyOutput
from oneloop.errors import ConfigError
from oneloop.objective.preference import Hinge, ImplicitReward, LogSigmoid, RewardHead, SquaredMargin, pairs

MARGINS = torch.tensor([-30.0, -2.0, -0.1, 0.0, 0.3, 1.0, 4.0, 30.0], dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_log_sigmoid_is_the_formula(smoothing):
    wanted = [-(1 - smoothing) * log(sigmoid(m)) - smoothing * log(sigmoid(-m)) for m in MARGINS.tolist()]
    assert LogSigmoid(smoothing)(MARGINS, 0.1).tolist() == pytest.approx(wanted, rel=1e-9)


def test_smoothing_has_its_minimum_where_the_labels_are_right_that_often():
    # d/dm = −(1−s)σ(−m) + sσ(m) = 0 at σ(m) = 1 − s: s = 0.1 → m = ln 9
    margin = torch.tensor([log(9.0)], dtype=torch.float64, requires_grad=True)
    LogSigmoid(0.1)(margin, 1.0).sum().backward()
    assert abs(margin.grad.item()) < 1e-12
    margin.grad = None
    LogSigmoid(0.0)(margin, 1.0).sum().backward()
    assert margin.grad.item() == pytest.approx(-0.1)  # −σ(−ln 9)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_squared_margin_and_hinge_are_the_formulas(beta):
    ipo = [(m / beta - 1 / (2 * beta)) ** 2 for m in MARGINS.tolist()]
    assert SquaredMargin()(MARGINS, beta).tolist() == pytest.approx(ipo, rel=1e-12)
    assert Hinge()(MARGINS, beta).tolist() == pytest.approx([max(0.0, 1 - m) for m in MARGINS.tolist()], rel=1e-12)


def test_ipo_by_hand():
    # β 0.1 and summed log-ratios h_w − h_l = 3 nats: margin 0.3, (3 − 1/(2·0.1))² = (3 − 5)² = 4
    assert SquaredMargin()(torch.tensor([0.3], dtype=torch.float64), 0.1).item() == pytest.approx(4.0)


def test_a_huge_margin_stays_finite():
    margin = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = LogSigmoid()(margin, 1.0)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([1e4, 0.0]) and margin.grad.tolist() == pytest.approx([-1.0, 0.0])


def rows(**changes):
    """Two pairs, with junk wherever the mask is False."""
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]).bool()
    ref = torch.arange(16, dtype=torch.float64).reshape(4, 4) / -10
    batch = Batch(
        tokens=torch.zeros(4, 4, dtype=torch.int64),
        mask=mask,
        group=torch.tensor([4, 4, 9, 9]),
        rewards=torch.zeros(4, 4, dtype=torch.float64),
        truncated=torch.zeros(4, dtype=torch.bool),
        ref_logprobs=torch.where(mask, ref, torch.nan),
    )
    logprobs = torch.where(mask, 2 * ref + 0.5, torch.inf)
    return PolicyOutput(logprobs, torch.zeros_like(logprobs), **changes), batch


@pytest.mark.parametrize("length_normalized", [False, True])
def test_implicit_reward_is_the_sum_over_actions(length_normalized):
    out, batch = rows()
    wanted = []
    for i in range(4):
        actions = [t for t in range(4) if batch.mask[i, t]]
        total = sum(float(out.logprobs[i, t]) - float(batch.ref_logprobs[i, t]) for t in actions)
        wanted.append(0.3 * (total / len(actions) if length_normalized else total))
    rewards = ImplicitReward(0.3, length_normalized)(out, batch)
    assert rewards.tolist() == pytest.approx(wanted, rel=1e-12)
    other = ImplicitReward(0.3, not length_normalized)(out, batch)
    assert not torch.allclose(rewards, other, rtol=1e-2)


def test_reward_head_reads_the_scores():
    scores = torch.tensor([0.5, -1.0, 2.0, 0.0])
    out, batch = rows(scores=scores)
    assert RewardHead()(out, batch) is scores and RewardHead().beta == 1.0
    with pytest.raises(ValueError, match="reward model"):
        RewardHead()(rows()[0], batch)


def test_pairs_by_hand():
    # rows in any order; group 7: rows 0 and 3, the better one is 3; group 2: rows 1 and 2, the better one is 1
    group, labels = torch.tensor([7, 2, 2, 7]), torch.tensor([0.0, 1.0, 0.5, 1.0])
    better, worse = pairs(group, labels)
    assert sorted(zip(better.tolist(), worse.tolist(), strict=True)) == [(1, 2), (3, 0)]


@pytest.mark.parametrize("seed", range(5))
def test_pairs_in_any_order(seed):
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(12, generator=rng)
    group, labels = torch.arange(12)[order] // 2, (torch.arange(12) % 2).float()[order]
    better, worse = pairs(group, labels)
    assert sorted(group[better].tolist()) == list(range(6)) and torch.equal(group[better], group[worse])
    assert bool((labels[better] == 1).all()) and bool((labels[worse] == 0).all())


@pytest.mark.parametrize(
    ("group", "labels", "message"),
    [
        ([0, 0, 0], [1.0, 0.0, 0.0], "group 0 has 3 rows"),
        ([0, 0, 1], [1.0, 0.0, 0.0], "group 1 has 1 rows"),
        ([0, 0, 0, 0], [1.0, 0.0, 1.0, 0.0], "group 0 has 4 rows"),
        ([0, 1, 1, 2], [1.0, 0.0, 1.0, 0.0], "group 0 has 1 rows"),
        ([3, 3], [1.0, 1.0], "group 3 has two equal rewards"),
    ],
)
def test_what_is_no_pair_is_named(group, labels, message):
    with pytest.raises(ValueError, match=message):
        pairs(torch.tensor(group), torch.tensor(labels))


def test_no_pairs():
    better, worse = pairs(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert len(better) == len(worse) == 0


def test_refusals():
    with pytest.raises(ConfigError, match="β must be positive"):
        ImplicitReward(0.0)
    with pytest.raises(ConfigError, match="the labels say nothing"):
        LogSigmoid(0.5)
