"""What must hold of every advantage, whatever the rewards."""

from math import sqrt

import torch
from drawn import at_the_end, close, double, few, groups, noise, quarters, rows
from hypothesis import assume, given
from hypothesis import strategies as st

from oneloop.objective.advantage import (
    GAE,
    BatchWhitened,
    GroupRelative,
    LeaveOneOut,
    NoBaseline,
    row_rewards,
    scored,
    whiten,
)

GROUPED = st.sampled_from([GroupRelative(), GroupRelative(ddof=1), GroupRelative(scale="none"), LeaveOneOut()])
FACTORS = st.integers(0, 8).map(lambda n: n / 8)


def credit(estimator, rewards, group):
    table, mask = at_the_end(rewards)
    return estimator(table, None, mask, torch.tensor(group)).advantages[:, 0]


@few
@given(GROUPED, groups(), groups())
def test_another_groups_rewards_change_nothing(estimator, one, other):
    names = [name + 10 for name in other[1]]
    together = credit(estimator, one[0] + other[0], [*one[1], *names])
    close(together[: len(one[0])], credit(estimator, *one))


@few
@given(GROUPED, groups(), st.integers(-5, 5))
def test_a_groups_name_changes_nothing(estimator, drawn, shift):
    rewards, group = drawn
    close(credit(estimator, rewards, [7 * name + shift for name in group]), credit(estimator, *drawn))


@few
@given(GROUPED, groups(), st.data())
def test_the_order_of_rows_changes_nothing(estimator, drawn, data):
    rewards, group = drawn
    order = data.draw(st.permutations(range(len(group))))
    moved = credit(estimator, [rewards[i] for i in order], [group[i] for i in order])
    close(moved, credit(estimator, *drawn)[list(order)])


@few
@given(GROUPED, groups())
def test_each_groups_advantages_add_up_to_zero(estimator, drawn):
    found = credit(estimator, *drawn)
    for name in set(drawn[1]):
        assert abs(float(found[double(drawn[1]) == name].sum())) < 1e-9


@few
@given(GROUPED, quarters, st.integers(1, 6))
def test_equal_rewards_and_groups_of_one_have_none(estimator, reward, size):
    assert not credit(estimator, [reward] * size, [3] * size).any()


@few
@given(GROUPED, groups(least=2))
def test_a_larger_reward_has_a_larger_advantage(estimator, drawn):
    found, (rewards, group) = credit(estimator, *drawn), drawn
    for i in range(len(group)):
        for j in range(len(group)):
            if group[i] == group[j] and rewards[i] > rewards[j]:
                assert found[i] > found[j]


@few
@given(groups(least=2))
def test_ddof_and_leave_one_out_differ_by_a_factor_of_the_groups_size(drawn):
    one, two = (credit(GroupRelative(ddof=ddof, eps=0.0), *drawn) for ddof in (0, 1))
    mean, loo = credit(GroupRelative(scale="none"), *drawn), credit(LeaveOneOut(), *drawn)
    size = double([drawn[1].count(name) for name in drawn[1]])
    close(two, one * ((size - 1) / size).sqrt())
    close(loo, mean * size / (size - 1))


@few
@given(groups())
def test_a_standard_score_is_bounded_by_the_groups_size(drawn):
    size = double([drawn[1].count(name) for name in drawn[1]])
    assert bool((credit(GroupRelative(), *drawn).abs() <= (size - 1).sqrt() + 1e-9).all())


@few
@given(GROUPED, groups(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_a_row_without_a_score_is_absent(estimator, drawn, bad):
    rewards, group = drawn
    found = credit(estimator, [*rewards, bad], [*group, group[0]])
    assert found[-1] == 0
    close(found[:-1], credit(estimator, *drawn))


# ---- over tokens


def gae(estimator, mask, rng):
    rewards, values, last = noise(mask, rng), noise(mask, rng), noise(mask, rng)[:, 0]
    found = estimator(rewards, values, mask, torch.zeros(len(mask), dtype=torch.int64), bootstrap=last)
    return found, rewards, values, last


@few
@given(rows(), FACTORS, FACTORS)
def test_gae_is_its_definition_in_quadratic_time(drawn, gamma, lam):
    mask, rng = drawn
    found, rewards, values, last = gae(GAE(gamma, lam, whiten=False), mask, rng)
    for i in range(len(mask)):
        places = mask[i].nonzero()[:, 0].tolist()
        after = [*values[i, places[1:]].tolist(), float(last[i])]
        delta = [float(rewards[i, t]) + gamma * v - float(values[i, t]) for t, v in zip(places, after, strict=False)]
        for k, t in enumerate(places):
            wanted = sum((gamma * lam) ** (m - k) * delta[m] for m in range(k, len(places)))
            assert abs(float(found.advantages[i, t]) - wanted) < 1e-9


@few
@given(rows(), FACTORS, FACTORS)
def test_returns_are_the_advantages_and_the_values(drawn, gamma, lam):
    mask, rng = drawn
    found, _, values, _ = gae(GAE(gamma, lam, whiten=False), mask, rng)
    close(found.returns, torch.where(mask, found.advantages + values, 0.0))


@few
@given(rows(), FACTORS)
def test_whitening_leaves_the_returns_alone(drawn, lam):
    mask, rng = drawn
    state = rng.get_state()
    plain = gae(GAE(lam=lam, whiten=False), mask, rng)[0]
    rng.set_state(state)
    white = gae(GAE(lam=lam), mask, rng)[0]
    close(white.returns, plain.returns)
    close(white.advantages, whiten(plain.advantages, mask))


@few
@given(rows())
def test_lambda_one_is_the_return_without_the_value(drawn):
    mask, rng = drawn
    found, rewards, values, last = gae(GAE(1.0, 1.0, whiten=False), mask, rng)
    to_go = NoBaseline()(rewards, None, mask, torch.zeros(len(mask), dtype=torch.int64)).advantages
    close(found.advantages, torch.where(mask, to_go + last[:, None] - values, 0.0))


@few
@given(rows(), FACTORS)
def test_a_critic_that_knows_leaves_no_advantage(drawn, lam):
    mask, rng = drawn
    rewards, group = noise(mask, rng), torch.zeros(len(mask), dtype=torch.int64)
    values = NoBaseline()(rewards, None, mask, group).advantages
    found = GAE(1.0, lam, whiten=False)(rewards, values, mask, group)
    close(found.advantages, torch.zeros_like(rewards))


@few
@given(rows(), FACTORS, FACTORS, st.sampled_from([-2.0, 0.5, 4.0]))
def test_gae_is_linear(drawn, gamma, lam, factor):
    mask, rng = drawn
    estimator, group = GAE(gamma, lam, whiten=False), torch.zeros(len(mask), dtype=torch.int64)
    rewards, values, last = noise(mask, rng), noise(mask, rng), noise(mask, rng)[:, 0]
    once = estimator(rewards, values, mask, group, bootstrap=last).advantages
    more = estimator(factor * rewards, factor * values, mask, group, bootstrap=factor * last).advantages
    close(more, factor * once)


ALL = st.sampled_from([GAE(0.9, 0.5), GroupRelative(), LeaveOneOut(), BatchWhitened(0.9), NoBaseline(0.9)])


@few
@given(ALL, rows(), st.integers(1, 4), st.sampled_from([1e6, torch.nan]))
def test_padding_and_gaps_change_nothing(estimator, drawn, columns, junk):
    """Columns that are no actions, at any place."""
    mask, rng = drawn
    rewards, values, group = noise(mask, rng), noise(mask, rng), torch.arange(len(mask)) // 2
    wide = mask.shape[1] + columns
    places = torch.randperm(wide, generator=rng)[: mask.shape[1]].sort().values
    spread = torch.zeros(len(mask), wide, dtype=torch.bool)
    spread[:, places] = mask
    tables = []
    for table in (rewards, values):
        out = torch.full((len(mask), wide), junk, dtype=torch.float64)
        out[:, places] = torch.where(mask, table, junk)
        tables.append(out)
    found = estimator(*tables, spread, group).advantages
    close(found[:, places], estimator(rewards, values, mask, group).advantages)
    assert not found[~spread].any()


@few
@given(rows(), FACTORS)
def test_the_first_reward_to_go_is_the_discounted_sum(drawn, gamma):
    mask, rng = drawn
    assume(bool(mask.any()))
    rewards = noise(mask, rng)
    found = NoBaseline(gamma)(rewards, None, mask, torch.zeros(len(mask), dtype=torch.int64)).advantages
    for i in mask.any(1).nonzero()[:, 0].tolist():
        acts = rewards[i, mask[i]]
        wanted = (acts * double([gamma**k for k in range(len(acts))])).sum()
        close(found[i, mask[i]][0], wanted)


@few
@given(rows(), quarters, st.sampled_from([2.0, 64.0]))
def test_whitening_forgets_where_and_how_wide(drawn, shift, factor):
    mask, rng = drawn
    values = noise(mask, rng)
    once, moved = whiten(values, mask), whiten(factor * values + shift, mask)
    torch.testing.assert_close(moved, once, rtol=1e-6, atol=1e-6)  # 1e-8 stands beside the variance
    count = int(mask.sum())
    assert not count or float(once.abs().max()) <= sqrt(count)


@few
@given(rows())
def test_rows_are_scored_together_or_not_at_all(drawn):
    mask, rng = drawn
    rewards = torch.where(noise(mask, rng) > 1.5, torch.nan, noise(mask, rng))
    live = scored(rewards, mask)
    for i in range(len(mask)):
        good = bool(rewards[i, mask[i]].isfinite().all())
        assert torch.equal(live[i], mask[i] if good else torch.zeros_like(mask[i]))
    assert bool(row_rewards(torch.where(live, rewards, 0.0), live).isfinite().all())
