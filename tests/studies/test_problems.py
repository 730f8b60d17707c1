"""What the studies call true is true: gradients by finite differences, sums by brute force, values by a formula."""

from itertools import product

import numpy as np
import pytest
import torch

from oneloop.objective.advantage import GroupRelative, LeaveOneOut, NoBaseline
from oneloop.studies import baselines, chain, lengths, pairs, proxy
from oneloop.studies.bandit import EXACT, Bandit, estimate, groups_of
from oneloop.studies.contexts import ACTIONS, CONTEXTS, Draws, TablePolicy, optimum, true_kl


def test_the_bandits_gradient_is_that_of_its_value() -> None:
    bandit, step = baselines.problem(3), 1e-6
    slopes = []
    for arm in range(len(bandit.logits)):
        moved = torch.zeros_like(bandit.logits)
        moved[arm] = step
        up, down = (Bandit(bandit.logits + sign * moved, bandit.rewards).value for sign in (1, -1))
        slopes.append(float(up - down) / (2 * step))
    assert np.allclose(slopes, bandit.gradient, atol=1e-9)


@pytest.mark.parametrize(("arms", "size"), [(4, 2), (4, 8), (3, 5)])
def test_groups_are_all_there_are(arms: int, size: int) -> None:
    groups = groups_of(arms, size)
    assert float(groups.orders.sum()) == arms**size
    policy = torch.softmax(torch.randn(arms, generator=torch.Generator().manual_seed(0), dtype=torch.float64), -1)
    assert float(groups.chance(policy).sum()) == pytest.approx(1, abs=1e-12)


ADVANTAGES = {
    "leave one out": (LeaveOneOut(), lambda r: r - (r.sum() - r) / (len(r) - 1)),
    "mean": (GroupRelative(scale="none"), lambda r: r - r.mean()),
    "mean and std": (GroupRelative(eps=1e-6), lambda r: (r - r.mean()) / (r.std() + 1e-6) if np.ptp(r) else 0 * r),
    "exact value": (EXACT, None),
    "none": (NoBaseline(), lambda r: r),
}


@pytest.mark.parametrize("name", ADVANTAGES)
def test_mean_and_variance_are_those_of_every_ordered_group(name: str) -> None:
    """4³ ordered groups of three, one after another, with Σ Â ∇log π / K by hand."""
    advantage, formula = ADVANTAGES[name]
    bandit, size = baselines.problem(1), 3
    policy, rewards, value = bandit.policy.numpy(), bandit.rewards.numpy(), float(bandit.value)
    formula = formula or (lambda r: r - value)
    chances, gradients = [], []
    for arms in product(range(4), repeat=size):
        credit = formula(rewards[list(arms)])
        slopes = [np.eye(4)[arm] - policy for arm in arms]
        gradients.append(sum(c * slope for c, slope in zip(credit, slopes, strict=True)) / size)
        chances.append(np.prod(policy[list(arms)]))
    chances, gradients = np.array(chances)[:, None], np.array(gradients)
    mean = (chances * gradients).sum(0)
    found = estimate(bandit, advantage, size)
    assert np.allclose(found.mean, mean, rtol=1e-6, atol=1e-9)  # the library's weights are float32
    assert float(found.variance) == pytest.approx(float((chances * (gradients - mean) ** 2).sum()), rel=1e-6)


def test_the_walks_values_are_the_gamblers() -> None:
    """P(right end first) from state i of n: (1 − ρ^(i+1))/(1 − ρ^(n+1)) with ρ = q/p; the value is 2P − 1."""
    ratio = (1 - chain.RIGHT) / chain.RIGHT
    places = np.arange(1, chain.STATES + 1)
    chance = (1 - ratio**places) / (1 - ratio ** (chain.STATES + 1))
    assert np.allclose(chain.walk_values(), 2 * chance - 1, atol=1e-12)


def test_walks_end_where_they_should_as_often_as_they_should() -> None:
    rng = torch.Generator().manual_seed(0)
    states, steps, live = chain.walks(4000, rng)
    last = live.sum(1) - 1
    rows = torch.arange(len(live))
    ended = states[rows, last] + steps[rows, last]
    assert set(ended.tolist()) == {-1, chain.STATES}
    value = float(torch.where(ended == -1, -1.0, 1.0).mean())
    assert abs(value - float(chain.walk_values()[chain.START])) < 4 / 4000**0.5


def test_dpo_on_four_answers_reaches_the_closed_form() -> None:
    """π* ∝ π_ref exp(q/β): with labels drawn the gap is that of the qualities, 2.8, whatever β is."""
    for beta in (0.5, 2.0):
        found = [pairs.trained(seed, beta, pairs.DRAWN, 4000, 80) for seed in range(3)]
        assert sum(one.gap for one in found) / 3 == pytest.approx(pairs.GAP, abs=0.25)


def test_the_table_policys_gradient_is_that_of_its_log_probs() -> None:
    models = TablePolicy(0.1)
    with torch.no_grad():
        models.logits += torch.randn(CONTEXTS, ACTIONS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Draws(models, 0, group_size=2, noise=0.0).batch(0)
    models.policy(batch).logprobs[0, 1].backward()
    context, action = batch.tokens[0].tolist()
    slope = -torch.softmax(models.logits[context].detach(), -1)
    slope[action] += 1
    assert models.logits.grad is not None
    assert torch.allclose(models.logits.grad[context], slope)
    assert int((models.logits.grad.abs().sum(1) > 0).sum()) == 1


def test_stale_answers_come_from_the_policy_of_that_many_updates_ago() -> None:
    models = TablePolicy(0.1)
    draws = Draws(models, 0, group_size=4, noise=0.0, staleness=2)
    tables = []
    for step in range(5):
        tables.append(models.table())
        batch = draws.batch(step)
        drawn = tables[max(step - 2, 0)].log_softmax(-1)
        told = batch.rollout_logprobs
        assert told is not None
        assert torch.equal(told[:, 1], drawn[batch.tokens[:, 0], batch.tokens[:, 1]])
        with torch.no_grad():
            models.logits += 0.1 * torch.randn(CONTEXTS, ACTIONS, dtype=torch.float64)
        draws.update(models, step)


def test_distances_and_regrets_are_exact() -> None:
    draws = Draws(TablePolicy(0.1), 0, group_size=2, noise=1.0)
    sharp = torch.where(draws.rewards == draws.rewards.amax(1, keepdim=True), 50.0, 0.0).double()
    assert draws.expected(sharp) == pytest.approx(optimum(draws.rewards))
    flat = torch.zeros_like(sharp)
    assert draws.expected(flat) == pytest.approx(float(draws.rewards.mean()))
    assert true_kl(flat, flat) == 0
    assert true_kl(sharp, flat) == pytest.approx(np.log(ACTIONS), abs=1e-6)


def test_answers_that_go_on_and_stop_have_the_log_probs_that_drew_them() -> None:
    """Expected length 1 + Σ_t p^t for the first 23, by the policy's own log-probs of what it drew."""
    models = lengths.Rambler()
    batch = lengths.Talk(models, 0).batch(0)
    out = models.policy(batch)
    assert bool((out.logprobs[batch.mask] < 0).all())
    chance = 1 / (1 + np.exp(-lengths.BEGIN))
    assert models.length(lengths.WRONG) == pytest.approx(1 + sum(chance**t for t in range(1, lengths.LONGEST)))
    rows = batch.mask.sum(1).double()
    assert abs(float(rows.mean()) - (1 + models.length(lengths.WRONG))) < 1.5
    row, col = 0, int(batch.mask[0].sum())
    told = float(out.logprobs[row, 1:col].detach().exp().prod())
    assert told == pytest.approx(0.25 * chance ** (col - 2))
    assert float(batch.rewards.sum()) == float((batch.tokens[:, 1] == batch.tokens[:, 0] % 4).sum())


def test_best_of_n_takes_the_answer_that_the_proxy_likes_best() -> None:
    """By drawing: of n uniform answers the one with the highest proxy, 20 000 times."""
    gold, liked = (reward.numpy() for reward in proxy.rewards_of(0, proxy.HEAVY))
    drawn = np.random.default_rng(0).integers(0, proxy.ANSWERS, (len(gold), 2000, 8))
    places = np.take_along_axis(drawn, np.take_along_axis(liked[:, None], drawn, 2).argmax(2)[..., None], 2)
    sampled = np.take_along_axis(gold[:, None], places, 2).mean()
    exact = proxy.best_of(0, proxy.HEAVY)[proxy.BEST_OF.index(8)][0]
    assert abs(sampled - exact) < 0.03
