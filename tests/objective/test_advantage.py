"""Advantage estimators against the papers' sums written as loops, and what must not change them."""

from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oneloop.objective.advantage import GAE, BatchWhitened, GroupRelative, LeaveOneOut, NoBaseline

ESTIMATORS = [
    GAE(whiten=False),
    GAE(gamma=0.9, lam=0.7, whiten=True),
    GroupRelative(),
    GroupRelative(ddof=1),
    GroupRelative(scale="none"),
    LeaveOneOut(),
    BatchWhitened(gamma=0.95),
    NoBaseline(),
]
GROUP_ESTIMATORS = [GroupRelative(), GroupRelative(ddof=1), GroupRelative(scale="none"), LeaveOneOut()]
NAN = float("nan")


def experience(seed, rows=6, width=7, dtype=torch.float64):
    """Random rewards, values and masks with holes; every row has an action; two groups of three."""
    rng = torch.Generator().manual_seed(seed)
    rewards = torch.randn(rows, width, generator=rng, dtype=torch.float64).to(dtype)
    values = torch.randn(rows, width, generator=rng, dtype=torch.float64).to(dtype)
    mask = torch.rand(rows, width, generator=rng) < 0.6
    mask[torch.arange(rows), torch.randint(width, (rows,), generator=rng)] = True
    bootstrap = torch.randn(rows, generator=rng, dtype=torch.float64).to(dtype)
    return rewards, values, mask, torch.arange(rows) % 2, bootstrap


def actions_of(mask):
    return [[t for t in range(mask.shape[1]) if mask[i, t]] for i in range(mask.shape[0])]


def slow_gae(rewards, values, mask, bootstrap, gamma, lam):
    """Â_k = Σ_{l ≥ k} (γλ)^{l−k} δ_l as the explicit double sum over the row's actions."""
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for i, actions in enumerate(actions_of(mask)):
        deltas = []
        for k, t in enumerate(actions):
            following = values[i, actions[k + 1]] if k + 1 < len(actions) else bootstrap[i]
            deltas.append(rewards[i, t] + gamma * following - values[i, t])
        for k, t in enumerate(actions):
            advantages[i, t] = sum((gamma * lam) ** (m - k) * deltas[m] for m in range(k, len(deltas)))
            returns[i, t] = advantages[i, t] + values[i, t]
    return advantages, returns


def slow_whiten(x, mask):
    flat = [float(x[i, t]) for i, actions in enumerate(actions_of(mask)) for t in actions]
    mean = sum(flat) / len(flat)
    variance = sum((value - mean) ** 2 for value in flat) / len(flat)
    out = torch.zeros_like(x)
    for i, actions in enumerate(actions_of(mask)):
        for t in actions:
            out[i, t] = (x[i, t] - mean) / sqrt(variance + 1e-8)
    return out


def slow_rewards_to_go(rewards, mask, gamma):
    out = torch.zeros_like(rewards)
    for i, actions in enumerate(actions_of(mask)):
        for k, t in enumerate(actions):
            out[i, t] = sum(gamma ** (m - k) * rewards[i, actions[m]] for m in range(k, len(actions)))
    return out


def slow_group(rewards, mask, group, baseline):
    """One number a row, from the list of its group's totals and its own place in it."""
    totals = [sum(float(rewards[i, t]) for t in actions) for i, actions in enumerate(actions_of(mask))]
    out = torch.zeros_like(rewards)
    for i, actions in enumerate(actions_of(mask)):
        members = [j for j in range(len(totals)) if group[j] == group[i]]
        for t in actions:
            out[i, t] = baseline([totals[j] for j in members], members.index(i))
    return out


def standard_score(totals, place, ddof=0, eps=1e-6):
    mean = sum(totals) / len(totals)
    std = sqrt(sum((r - mean) ** 2 for r in totals) / (len(totals) - ddof))
    return (totals[place] - mean) / (std + eps)


def leave_one_out(totals, place):
    others = totals[:place] + totals[place + 1 :]
    return totals[place] - sum(others) / len(others)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.0), (0.97, 1.0), (0.8, 0.6)])
def test_gae_is_the_double_sum(seed, gamma, lam):
    rewards, values, mask, group, bootstrap = experience(seed)
    advantages, returns = slow_gae(rewards, values, mask, bootstrap, gamma, lam)
    credit = GAE(gamma, lam, whiten=False)(rewards, values, mask, group, bootstrap=bootstrap)
    torch.testing.assert_close(credit.advantages, advantages, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(credit.returns, returns, rtol=1e-12, atol=1e-12)
    whitened = GAE(gamma, lam)(rewards, values, mask, group, bootstrap=bootstrap)
    torch.testing.assert_close(whitened.advantages, slow_whiten(advantages, mask), rtol=1e-12, atol=1e-12)
    assert torch.equal(whitened.returns, credit.returns)  # the critic learns from the unwhitened ones


def test_gae_by_hand():
    # γ 0.5, λ 0.5, one tool token between the two actions: r = (1, ·, 2), V = (4, ·, 8), terminated
    #   δ_2 = 2 + 0.5·0 − 8 = −6;   δ_0 = 1 + 0.5·8 − 4 = 1;   Â_0 = 1 + 0.25·(−6) = −0.5
    rewards, values = torch.tensor([[1.0, 99.0, 2.0]]), torch.tensor([[4.0, 99.0, 8.0]])
    mask, group = torch.tensor([[True, False, True]]), torch.tensor([0])
    credit = GAE(0.5, 0.5, whiten=False)(rewards, values, mask, group)
    assert credit.advantages.tolist() == [[-0.5, 0.0, -6.0]]
    assert credit.returns.tolist() == [[3.5, 0.0, 2.0]]
    # truncated with V = 10 after the last action: δ_2 = 2 + 0.5·10 − 8 = −1,  Â_0 = 1 − 0.25 = 0.75
    cut = GAE(0.5, 0.5, whiten=False)(rewards, values, mask, group, bootstrap=torch.tensor([10.0]))
    assert cut.advantages.tolist() == [[0.75, 0.0, -1.0]]


@pytest.mark.parametrize("seed", range(3))
def test_lambda_one_is_return_minus_value(seed):
    rewards, values, mask, group, _ = experience(seed)
    target = torch.where(mask, slow_rewards_to_go(rewards, mask, 1.0) - values, 0.0)
    exact = GAE(1.0, 1.0, whiten=False)(rewards, values, mask, group).advantages
    mutant = GAE(1.0, 0.95, whiten=False)(rewards, values, mask, group).advantages
    torch.testing.assert_close(exact, target, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(mutant, target, rtol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ddof", [0, 1])
def test_group_relative_is_the_standard_score(seed, ddof):
    rewards, _, mask, group, _ = experience(seed)
    wanted = slow_group(rewards, mask, group, lambda totals, i: standard_score(totals, i, ddof))
    credit = GroupRelative(ddof=ddof)(rewards, None, mask, group)
    torch.testing.assert_close(credit.advantages, wanted, rtol=1e-12, atol=1e-12)
    assert credit.returns is None
    other = GroupRelative(ddof=1 - ddof)(rewards, None, mask, group).advantages
    assert not torch.allclose(other, wanted, rtol=1e-2)  # √(2/3) apart in groups of three


@pytest.mark.parametrize("seed", range(3))
def test_group_mean_and_leave_one_out(seed):
    rewards, _, mask, group, _ = experience(seed)
    centred = slow_group(rewards, mask, group, lambda totals, i: totals[i] - sum(totals) / len(totals))
    credit = GroupRelative(scale="none")(rewards, None, mask, group)
    torch.testing.assert_close(credit.advantages, centred, rtol=1e-12, atol=1e-12)
    wanted = slow_group(rewards, mask, group, leave_one_out)
    torch.testing.assert_close(LeaveOneOut()(rewards, None, mask, group).advantages, wanted, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(centred, wanted, rtol=1e-2)  # G/(G−1) apart


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_batch_whitened_and_no_baseline(seed, gamma):
    rewards, _, mask, group, _ = experience(seed)
    to_go = slow_rewards_to_go(rewards, mask, gamma)
    whitened = BatchWhitened(gamma)(rewards, None, mask, group).advantages
    torch.testing.assert_close(whitened, slow_whiten(to_go, mask), rtol=1e-12, atol=1e-12)
    plain = NoBaseline()(rewards, None, mask, group).advantages
    torch.testing.assert_close(plain, slow_rewards_to_go(rewards, mask, 1.0), rtol=1e-12, atol=1e-12)


def stretched(x, fill):
    """Three columns of padding on the left, two tool tokens after column 2, four columns on the right."""
    block = torch.full_like(x[:, :1], fill)
    return torch.cat([*[block] * 3, x[:, :3], *[block] * 2, x[:, 3:], *[block] * 4], 1)


@pytest.mark.parametrize("junk", [1e6, NAN, float("inf")])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_masked_slots_never_reach_an_advantage(estimator, junk):
    """Junk, padding on either side and inserted tool spans: the trainable tokens' advantages stay bit for bit."""
    rewards, values, mask, group, bootstrap = experience(5, width=24, dtype=torch.float32)
    plain = estimator(rewards, values, mask, group, bootstrap=bootstrap)
    dirty = [torch.where(mask, x, junk) for x in (rewards, values)]
    wide_mask = stretched(mask, False)
    wide = estimator(*(stretched(x, junk) for x in dirty), wide_mask, group, bootstrap=bootstrap)
    assert torch.equal(wide.advantages[wide_mask], plain.advantages[mask])
    assert bool((wide.advantages[~wide_mask] == 0).all())
    if plain.returns is not None:
        assert torch.equal(wide.returns[wide_mask], plain.returns[mask])


def test_a_float32_sum_over_columns_would_show():
    """A mutant of the test above: tool spans move the partial sums of `sum(1)`, and with them the last bits."""
    rewards, _, mask, _, _ = experience(5, width=24, dtype=torch.float32)
    quiet = torch.where(mask, rewards, 0.0)
    assert not torch.equal(quiet.sum(1), stretched(quiet, 0.0).sum(1))


def test_decaying_through_a_tool_span_would_show():
    """Another mutant: GAE over every column, as if tool tokens were actions."""
    rewards, values, mask, group, _ = experience(5)
    skipped = GAE(0.9, 0.9, whiten=False)(rewards, values, mask, group).advantages
    everywhere = torch.ones_like(mask)
    silent = [torch.where(mask, x, 0.0) for x in (rewards, values)]
    decayed = GAE(0.9, 0.9, whiten=False)(*silent, everywhere, group).advantages
    assert not torch.allclose(decayed[mask], skipped[mask], rtol=1e-2)


def last_rewards(numbers, dtype=torch.float32):
    """One action a row: the rewards as they are."""
    return torch.tensor(numbers, dtype=dtype)[:, None], torch.ones(len(numbers), 1, dtype=torch.bool)


@pytest.mark.parametrize("estimator", GROUP_ESTIMATORS, ids=repr)
@pytest.mark.parametrize("tie", [0.1, 0.35, 1 / 3, -7.7, 1e6, 0.0])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_and_groups_of_one_give_exactly_zero(estimator, tie, size, dtype):
    rewards, mask = last_rewards([tie] * size, dtype)  # in float64, sums of 0.1 round inside the estimator as well
    credit = estimator(rewards, None, mask, torch.zeros(size, dtype=torch.int64))
    assert credit.advantages.tolist() == [[0.0]] * size


def test_the_tie_check_has_work_to_do():
    """Without it, rounding over a tiny std becomes an advantage: what the estimators would return for 7 × 0.1."""
    rewards = torch.tensor([0.1] * 7, dtype=torch.float64)
    assert float((rewards - rewards.mean()).abs().max()) > 0
    narrow = rewards.float()
    assert float(((narrow - narrow.mean()) / (narrow.std(correction=0) + 1e-9)).abs().max()) > 0.1


@pytest.mark.parametrize("estimator", [GroupRelative(), GroupRelative(ddof=1)], ids=repr)
def test_one_different_reward_stays_bounded(estimator):
    # population std of seven a and one b is |b − a|·√7/8, so the odd one gets (7/8)/(√7/8) = √7 < √8
    rewards, mask = last_rewards([0.35] * 7 + [0.95])
    advantages = estimator(rewards, None, mask, torch.zeros(8, dtype=torch.int64)).advantages[:, 0]
    scale = sqrt(7 / 8) if estimator.ddof else 1.0
    assert float(advantages[-1]) == pytest.approx(sqrt(7) * scale, rel=1e-4)
    assert float(advantages.abs().max()) <= sqrt(8)
    assert len(set(advantages[:7].tolist())) == 1


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_one_unscored_row_leaves_the_others_as_if_it_were_absent(estimator):
    rewards, values, mask, group, bootstrap = experience(8)
    rewards[2] = NAN
    bootstrap[2] = NAN
    others = torch.tensor([0, 1, 3, 4, 5])
    credit = estimator(rewards, values, mask, group, bootstrap=bootstrap)
    alone = estimator(rewards[others], values[others], mask[others], group[others], bootstrap=bootstrap[others])
    assert torch.equal(credit.advantages[others], alone.advantages)
    assert bool((credit.advantages[2] == 0).all())


@pytest.mark.parametrize("estimator", GROUP_ESTIMATORS, ids=repr)
def test_a_group_with_all_but_one_unscored_is_a_group_of_one(estimator):
    rewards, mask = last_rewards([NAN, 0.7, NAN])
    assert estimator(rewards, None, mask, torch.zeros(3, dtype=torch.int64)).advantages.tolist() == [[0.0]] * 3


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_a_batch_without_actions(estimator):
    nothing = torch.zeros(2, 3)
    credit = estimator(nothing, nothing, nothing.bool(), torch.tensor([0, 0]))
    assert torch.equal(credit.advantages, nothing)


def test_gae_without_values_says_what_to_use():
    rewards, mask = last_rewards([1.0])
    with pytest.raises(ValueError, match="GAE needs values"):
        GAE()(rewards, None, mask, torch.tensor([0]))


REWARDS = st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=2, max_size=9)  # exact in binary


@given(REWARDS, st.integers(-8, 8), st.sampled_from([0.25, 0.5, 2.0, 8.0]), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_group_advantages_under_shift_scale_and_permutation(numbers, shift, scale, random):
    rewards, mask = last_rewards(numbers, torch.float64)
    group = torch.zeros(len(numbers), dtype=torch.int64)
    order = list(range(len(numbers)))
    random.shuffle(order)
    for estimator in (GroupRelative(), GroupRelative(eps=0.0), GroupRelative(scale="none"), LeaveOneOut()):
        base = estimator(rewards, None, mask, group).advantages
        moved = estimator(rewards + shift, None, mask, group).advantages
        torch.testing.assert_close(moved, base, rtol=1e-12, atol=1e-12)
        shuffled = estimator(rewards[order], None, mask, group).advantages
        torch.testing.assert_close(shuffled, base[order], rtol=1e-12, atol=1e-12)
        assert abs(float(base.sum())) < 1e-9
        scaled = estimator(rewards * scale, None, mask, group).advantages
        if estimator == GroupRelative(eps=0.0):
            torch.testing.assert_close(scaled, base, rtol=1e-12, atol=1e-12)
            assert float(base.abs().max()) <= sqrt(len(numbers)) + 1e-9
        elif getattr(estimator, "scale", "none") == "none":
            torch.testing.assert_close(scaled, scale * base, rtol=1e-12, atol=1e-12)


@given(REWARDS)
@settings(max_examples=25, deadline=None)
def test_whitening_gives_mean_zero_and_variance_one(numbers):
    rewards, mask = last_rewards(numbers, torch.float64)
    advantages = BatchWhitened()(rewards, None, mask, torch.arange(len(numbers))).advantages
    if len(set(numbers)) == 1:
        assert bool((advantages == 0).all())
    else:
        assert float(advantages.mean()) == pytest.approx(0, abs=1e-9)
        assert float(advantages.var(correction=0)) == pytest.approx(1, rel=1e-5)  # 1e-8 stands beside the variance
