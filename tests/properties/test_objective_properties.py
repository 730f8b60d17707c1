"""What must hold of every ratio, divergence, mean, critic and pair, whatever the numbers."""

from dataclasses import replace
from math import log

import pytest
import torch
from drawn import close, double, few, noise, quarters, rows, seeds
from hypothesis import assume, given
from hypothesis import strategies as st

from oneloop.batch import Batch, PolicyOutput, Size
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.critic import explained_variance, value_loss
from oneloop.objective.divergence import AdaptiveKL, exact_kl, kl_estimate
from oneloop.objective.logprobs import before, logits_logprobs
from oneloop.objective.preference import Hinge, ImplicitReward, LogOdds, LogSigmoid, SquaredMargin, pairs
from oneloop.objective.select import MixedOutcome
from oneloop.objective.shaping import OverlongPenalty, last_action
from oneloop.objective.surrogate import LOG_RATIO_BOUND, ClippedRatio, ClippedWeight, bounded_log_ratio
from toy_models import ragged_batch

BANDS = st.tuples(st.integers(0, 8).map(lambda n: n / 10), st.integers(0, 20).map(lambda n: n / 10))
TABLES = seeds.map(lambda seed: torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(seed)).double() * 3)


def tokens(drawn):
    """log π_θ with its gradient wanted, log π_old, advantages."""
    mask, rng = drawn
    old = -noise(mask, rng).abs()
    new = (old + noise(mask, rng)).requires_grad_()
    return new, old, noise(mask, rng), mask


# ---- ratios and clips


@few
@given(rows(), BANDS)
def test_nothing_is_gained_beyond_the_band(drawn, band):
    low, high = band
    new, old, advantages, mask = tokens(drawn)
    gain = -ClippedRatio(low, high)(new, old, advantages, mask)[0][mask]
    edge = torch.where(advantages > 0, (1 + high) * advantages, (1 - low) * advantages)[mask]
    assert bool((gain <= edge + 1e-12).all())


@few
@given(rows(), BANDS)
def test_the_clipped_objective_is_a_lower_bound(drawn, band):
    new, old, advantages, mask = tokens(drawn)
    gain = -ClippedRatio(*band)(new, old, advantages, mask)[0]
    assert bool((gain[mask] <= ((new - old).exp() * advantages)[mask] + 1e-12).all())


@few
@given(rows(), BANDS, st.sampled_from(["token", "sequence"]), st.sampled_from([None, 1.5]))
def test_the_flag_says_where_the_gradient_is_zero(drawn, band, level, dual):
    new, old, advantages, mask = tokens(drawn)
    loss, flat = ClippedRatio(*band, level=level, dual=dual)(new, old, advantages, mask)
    loss.sum().backward()
    assert torch.equal(flat, mask & (new.grad == 0) & (advantages != 0))


@few
@given(rows(), st.integers(11, 40).map(lambda n: n / 10))
def test_a_dual_clip_bounds_what_a_bad_token_costs(drawn, dual):
    new, old, advantages, mask = tokens(drawn)
    far = (new + 15).detach()
    loss, _ = ClippedRatio(dual=dual)(far, old, advantages, mask)
    bad = mask & (advantages < 0)
    assert bool((loss[bad] <= dual * advantages[bad].abs() + 1e-9).all())


@few
@given(
    rows(), st.sampled_from([ClippedRatio(), ClippedRatio(level="sequence"), ClippedRatio(dual=3.0), ClippedWeight()])
)
def test_on_policy_the_gradient_is_the_score_functions(drawn, surrogate):
    _, old, advantages, mask = tokens(drawn)
    new = old.clone().requires_grad_()
    surrogate(new, old, advantages, mask)[0].sum().backward()
    close(new.grad, torch.where(mask, -advantages, 0.0))


@few
@given(rows())
def test_a_sequence_ratio_is_one_for_all_its_tokens(drawn):
    new, old, _, mask = tokens(drawn)
    loss = ClippedRatio(1.0, 1e9, level="sequence")(new, old, torch.ones_like(new), mask)[0]
    for i in mask.any(1).nonzero()[:, 0].tolist():
        mean = (new - old)[i, mask[i]].mean().exp()
        close(-loss[i, mask[i]], mean.expand(int(mask[i].sum())))


@few
@given(rows(), st.sampled_from([ClippedRatio(), ClippedRatio(level="sequence"), ClippedWeight()]))
def test_masked_slots_have_no_loss_and_no_gradient(drawn, surrogate):
    new, old, advantages, mask = tokens(drawn)
    junk = [torch.where(mask, x, torch.nan) for x in (new.detach(), old, advantages)]
    junk[0].requires_grad_()
    loss, flat = surrogate(*junk, mask)
    assert not loss[~mask].any() and not flat[~mask].any()
    close(loss, surrogate(new, old, advantages, mask)[0])


@few
@given(rows(), BANDS)
def test_a_clipped_weight_stays_inside_and_keeps_every_gradient(drawn, band):
    low, high = band
    new, old, advantages, mask = tokens(drawn)
    ClippedWeight(low, high)(new, old, advantages, mask)[0].sum().backward()
    weight = (new.grad / -advantages)[mask]
    assert bool(((1 - low - 1e-9 <= weight) & (weight <= 1 + high + 1e-9)).all()) and bool((weight > 0).all())


@few
@given(rows(), st.integers(-100, 100))
def test_log_ratios_stay_inside_their_bound(drawn, jump):
    new, old, _, mask = tokens(drawn)
    found = bounded_log_ratio(new.detach() + jump, old, mask)
    assert float(found.abs().max()) <= LOG_RATIO_BOUND and not found[~mask].any()
    assert bool(found.exp().float().isfinite().all())


@few
@given(rows(), st.integers(1, 40).map(lambda n: n / 10))
def test_a_truncated_weight_is_capped_and_one_where_the_two_agree(drawn, cap):
    new, old, _, _ = tokens(drawn)
    weight = TruncatedImportance(cap)(new, old)
    assert bool(((weight > 0) & (weight <= cap)).all()) and not weight.requires_grad
    assert bool((TruncatedImportance(cap)(old, old) == min(1.0, cap)).all())


# ---- divergences and log-probs


@few
@given(TABLES)
def test_k1_and_k3_are_unbiased(tables):
    p, q = (torch.log_softmax(x, -1) for x in tables)
    for estimator in ("k1", "k3"):
        close((p.exp() * kl_estimate(p - q, estimator)).sum(-1), exact_kl(*tables))


@few
@given(TABLES, quarters)
def test_a_divergence_sees_distributions_and_not_logits(tables, shift):
    close(exact_kl(tables[0] + shift, tables[1]), exact_kl(*tables))
    close(exact_kl(tables[0], tables[0] + shift), torch.zeros(3, dtype=torch.float64))
    assert bool((exact_kl(*tables) >= -1e-12).all())


@few
@given(st.lists(st.floats(-15, 15), min_size=1, max_size=6))
def test_k3_is_zero_at_no_distance_only(numbers):
    x = double(numbers)
    assert torch.equal(kl_estimate(x, "k3") < 1e-15, x.abs() < 1e-7)


@few
@given(quarters.map(abs), st.integers(1, 400).map(lambda n: n / 100), st.integers(0, 10**6))
def test_the_coefficient_follows_the_divergence_and_stays_positive(kl, target, n):
    after = AdaptiveKL(target, 1000).update(0.1, kl, n)
    assert 0.001 - 1e-12 <= after <= 0.1 * (1 + 0.2 * n / 1000) + 1e-12
    assert after >= 0.1 if kl > target else after <= 0.1 if kl < target else after == pytest.approx(0.1)


@few
@given(TABLES, quarters)
def test_log_probs_are_of_a_distribution(tables, shift):
    logits, vocabulary = tables[0], torch.arange(6)
    for row in logits:
        every, entropy = logits_logprobs(row.expand(6, 6), vocabulary)
        assert float(every.exp().sum()) == pytest.approx(1)
        assert -1e-12 <= float(entropy[0]) <= log(6) + 1e-12
        assert float(entropy[0]) == pytest.approx(float(-(every.exp() * every).sum()))
        close(logits_logprobs((row + shift).expand(6, 6), vocabulary)[0], every)


@few
@given(rows())
def test_what_stands_before_a_token_is_moved_by_one(drawn):
    mask, rng = drawn
    table = noise(mask, rng)
    moved = before(table)
    assert torch.equal(moved[:, 1:], table[:, :-1]) and torch.equal(moved[:, 0], table[:, 0])


# ---- means


def size_of(mask) -> Size:
    return Size(int(mask.sum()), int(mask.any(1).sum()))


@few
@given(rows(), st.sampled_from([TokenMean(), SequenceMean()]))
def test_the_weights_of_a_mean_add_up_to_one(drawn, aggregate):
    mask = drawn[0]
    total = float(aggregate(mask, size_of(mask)).sum())
    assert total == pytest.approx(1.0 if mask.any() else 0.0, rel=1e-5)


@few
@given(rows())
def test_rows_weigh_alike_or_tokens_do(drawn):
    mask = drawn[0]
    by_row = SequenceMean()(mask, size_of(mask)).sum(1)[mask.any(1)]
    assert len(by_row) == 0 or float(by_row.max() - by_row.min()) < 1e-6
    for aggregate in (TokenMean(), FixedLength(5)):
        assert len(aggregate(mask, size_of(mask))[mask].unique()) <= 1
    assert not TokenMean()(mask, size_of(mask))[~mask].any()


@few
@given(rows(), st.integers(0, 3), st.sampled_from([TokenMean(), SequenceMean(), FixedLength(9)]))
def test_weights_do_not_depend_on_how_a_step_is_cut(drawn, cut, aggregate):
    mask = drawn[0]
    size = size_of(mask)
    parts = [aggregate(part, size) for part in (mask[:cut], mask[cut:])]
    assert torch.equal(torch.cat(parts), aggregate(mask, size))


# ---- the critic


@few
@given(rows(), st.integers(1, 10).map(lambda n: n / 10))
def test_a_clipped_value_loses_no_less_and_a_huber_loss_no_more(drawn, size):
    mask, rng = drawn
    values, old, returns = (noise(mask, rng) for _ in range(3))
    plain = value_loss(values, old, returns)
    assert bool((plain >= 0).all())
    assert bool((value_loss(values, old, returns, clip=size) >= plain).all())
    assert bool((value_loss(values, old, returns, huber=size) <= plain + 1e-12).all())
    assert not value_loss(returns, returns, returns, clip=size).any()


@few
@given(rows())
def test_no_more_than_everything_can_be_explained(drawn):
    mask, rng = drawn
    values, returns = noise(mask, rng), noise(mask, rng)
    assume(int(mask.sum()) > 1)
    assert float(explained_variance(values, returns, mask)) <= 1
    assert float(explained_variance(returns + 3.0, returns, mask)) == pytest.approx(1, abs=1e-6)


# ---- pairs


@few
@given(quarters, st.integers(0, 4).map(lambda n: n / 10))
def test_turning_a_pair_round_turns_its_loss_round(margin, smoothing):
    m = double([margin])
    link = LogSigmoid(smoothing)
    close(link(m, 1.0) - link(-m, 1.0), -(1 - 2 * smoothing) * m)


@few
@given(quarters, st.sampled_from([LogSigmoid(), LogSigmoid(margin=1.5), Hinge()]))
def test_a_wider_margin_loses_no_more(margin, link):
    near, far = link(double([margin, margin + 0.5]), 1.0).tolist()
    assert near >= far >= 0


@few
@given(st.integers(1, 40).map(lambda n: n / 20), quarters)
def test_ipo_wants_half_a_nat_and_no_more(beta, margin):
    link = SquaredMargin()
    assert float(link(double([0.5]), beta)) == pytest.approx(0, abs=1e-20)
    assert float(link(double([0.5 + margin]), beta)) == pytest.approx(float(link(double([0.5 - margin]), beta)))


@few
@given(st.permutations(range(8)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_pairs_are_found_in_any_order(order, firsts):
    group = torch.tensor([row // 2 for row in order])
    labels = double([float((row % 2 == 0) == firsts[row // 2]) for row in order])
    chosen, rejected = pairs(group, labels)
    assert torch.equal(group[chosen], group[rejected]) and sorted(group[chosen].tolist()) == [0, 1, 2, 3]
    assert bool((labels[chosen] == 1).all()) and bool((labels[rejected] == 0).all())


@few
@given(seeds, quarters, st.booleans())
def test_an_implicit_reward_is_of_the_ratio_alone(seed, shift, by_length):
    """What moves the policy and the reference alike moves no reward; twice the ratio is twice the reward."""
    batch, rng = ragged_batch(seed, 2), torch.Generator().manual_seed(seed)
    new, ref = noise(batch.mask, rng), noise(batch.mask, rng)
    reward = ImplicitReward(0.3, by_length)

    def of(logprobs, reference):
        return reward(PolicyOutput(logprobs), replace(batch, ref_logprobs=reference))

    close(of(new + shift, ref + shift), of(new, ref))
    close(of(ref + 2 * (new - ref), ref), 2 * of(new, ref))
    assert not of(ref, ref).any()


@few
@given(st.lists(st.integers(1, 300).map(lambda n: -n / 40), min_size=2, max_size=5, unique=True))
def test_the_log_odds_rise_with_the_probability(means):
    mask = torch.ones(len(means), 1, dtype=torch.bool)
    batch = Batch(mask.long(), mask, torch.arange(len(means)), mask.double(), mask[:, 0])
    odds = LogOdds()(PolicyOutput(double(means)[:, None]), batch)
    assert torch.equal(odds.argsort(), double(means).argsort())
    close(torch.sigmoid(odds), double(means).exp())


# ---- what is kept, and shaped


@few
@given(st.lists(st.one_of(st.none(), quarters), max_size=6), st.data())
def test_which_groups_are_kept(rewards, data):
    keep = MixedOutcome()
    scored = [reward for reward in rewards if reward is not None]
    assert keep(rewards) == (len(set(scored)) > 1)
    assert keep(data.draw(st.permutations(rewards))) == keep([None if r is None else 2 * r + 1 for r in rewards])


@few
@given(st.integers(1, 30), st.integers(0, 30), quarters)
def test_a_longer_answer_is_never_punished_less(margin, more, reward):
    lengths = torch.arange(80)
    change = OverlongPenalty(margin + more, margin)(torch.full((80,), reward).double(), lengths) - reward
    assert bool((change.diff() <= 1e-6).all()) and float(change.min()) >= -1 and float(change.max()) == 0


@few
@given(rows())
def test_one_last_action_for_each_row_that_acts(drawn):
    mask = drawn[0]
    last = last_action(mask)
    assert torch.equal(last.sum(1), mask.any(1).long()) and not (last & ~mask).any()
    for i in mask.any(1).nonzero()[:, 0].tolist():
        assert not mask[i, int(last[i].long().argmax()) + 1 :].any()
