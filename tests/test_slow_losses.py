"""Every algorithm with every option against its objective written as loops over Python numbers.

The oracle starts from the raw rewards and the log-probs of four policies, and shares no code with the library.
"""

from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import pytest
import torch

from oneloop.algorithms import ALGORITHMS, DPO, Critic, PolicyGradient
from oneloop.objective.advantage import GAE, BatchWhitened, GroupRelative, LeaveOneOut, NoBaseline
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.divergence import KL
from oneloop.objective.preference import Hinge, ImplicitReward, LogSigmoid, RewardHead, SquaredMargin
from oneloop.objective.select import OverlongFilter
from oneloop.objective.shaping import OverlongPenalty
from oneloop.objective.surrogate import ClippedRatio, ClippedWeight, Ratio, ScoreFunction
from toy_models import Bigram, ragged_batch

GRADIENTS = {name: value for name, value in ALGORITHMS.items() if isinstance(value, PolicyGradient)}


class Action:
    """One trained token: its reward and what four policies and two critics say of it."""

    def __init__(self, reward, new, old, ref, rollout, value, old_value, entropy):
        self.reward, self.new, self.old, self.ref, self.rollout = reward, new, old, ref, rollout
        self.value, self.old_value, self.entropy = value, old_value, entropy


def rows_of(batch, before, after, reference):
    """The batch as lists of actions."""
    return [
        [
            Action(
                reward=float(batch.rewards[i, t]),
                new=after.logprobs[i, t].item(),
                old=before.logprobs[i, t].item(),
                ref=reference[i, t].item(),
                rollout=batch.rollout_logprobs[i, t].item(),
                value=after.values[i, t].item(),
                old_value=before.values[i, t].item(),
                entropy=after.entropy[i, t].item(),
            )
            for t in range(batch.mask.shape[1])
            if batch.mask[i, t]
        ]
        for i in range(len(batch))
    ]


def estimate(x, estimator):
    return {"k1": x, "k2": x * x / 2, "k3": exp(-x) - 1 + x}[estimator]


def shaped_rewards(algorithm, rows):
    out = [[action.reward for action in row] for row in rows]
    for row, rewards in zip(rows, out, strict=True):
        if algorithm.shape is not None:
            start, stop = algorithm.shape.max_length - algorithm.shape.margin, algorithm.shape.max_length
            over = 0.0 if len(row) <= start else min((len(row) - start) / (stop - start), 1.0)
            rewards[-1] -= over
        if algorithm.kl is not None and algorithm.kl.at == "reward":
            for k, action in enumerate(row):
                rewards[k] -= algorithm.kl.coef * estimate(action.old - action.ref, algorithm.kl.estimator)
    return out


def whitened(table):
    flat = [x for row in table for x in row]
    mean = sum(flat) / len(flat)
    variance = sum((x - mean) ** 2 for x in flat) / len(flat)
    return [[(x - mean) / sqrt(variance + 1e-8) for x in row] for row in table]


def discounted(values, factor):
    return [sum(factor ** (m - k) * values[m] for m in range(k, len(values))) for k in range(len(values))]


def slow_gae(estimator, rows, rewards, final):
    advantages, returns = [], []
    for row, row_rewards, bootstrap in zip(rows, rewards, final, strict=True):
        values = [action.old_value for action in row] + [bootstrap]
        deltas = [r + estimator.gamma * values[k + 1] - values[k] for k, r in enumerate(row_rewards)]
        advantages.append(discounted(deltas, estimator.gamma * estimator.lam))
        returns.append([a + v for a, v in zip(advantages[-1], values[:-1], strict=True)])
    return whitened(advantages) if estimator.whiten else advantages, returns


def slow_group(estimator, rows, rewards, group):
    totals = [sum(r) for r in rewards]
    out = []
    for i, row in enumerate(rows):
        members = [totals[j] for j in range(len(rows)) if group[j] == group[i]]
        n, mean = len(members), sum(members) / len(members)
        if isinstance(estimator, LeaveOneOut):
            advantage = 0.0 if n == 1 else totals[i] - (sum(members) - totals[i]) / (n - 1)
        else:
            advantage = totals[i] - mean
            if estimator.scale == "std":
                advantage /= sqrt(sum((m - mean) ** 2 for m in members) / (n - estimator.ddof)) + estimator.eps
        out.append([advantage] * len(row))
    return out


def slow_advantages(algorithm, rows, rewards, group, final):
    estimator = algorithm.advantage
    if isinstance(estimator, GAE):
        return slow_gae(estimator, rows, rewards, final)
    if isinstance(estimator, GroupRelative | LeaveOneOut):
        return slow_group(estimator, rows, rewards, group), None
    if isinstance(estimator, BatchWhitened):
        return whitened([discounted(r, estimator.gamma) for r in rewards]), None
    assert isinstance(estimator, NoBaseline)
    return [discounted(r, estimator.gamma) for r in rewards], None


def slow_surrogate(surrogate, action, row, advantage):
    if isinstance(surrogate, ScoreFunction):
        return -action.new * advantage
    ratio = exp(action.new - action.old)
    if isinstance(surrogate, ClippedWeight):
        low = -1e300 if surrogate.low is None else 1 - surrogate.low
        high = 1e300 if surrogate.high is None else 1 + surrogate.high
        return -min(max(ratio, low), high) * advantage * action.new
    if isinstance(surrogate, Ratio):
        return -ratio * advantage
    if surrogate.level == "sequence":
        ratio = exp(sum(a.new - a.old for a in row) / len(row))
    gain = min(ratio * advantage, min(max(ratio, 1 - surrogate.low), 1 + surrogate.high) * advantage)
    return -(max(gain, surrogate.dual * advantage) if surrogate.dual and advantage < 0 else gain)


def slow_value_error(critic, action, target):
    def error(v):
        gap = abs(v - target)
        if critic.huber is None:
            return gap**2 / 2
        return gap**2 / 2 if gap <= critic.huber else critic.huber * (gap - critic.huber / 2)

    if critic.clip is None:
        return error(action.value)
    near = min(max(action.value, action.old_value - critic.clip), action.old_value + critic.clip)
    return max(error(action.value), error(near))


def weight_of(aggregate, row, live):
    """One over the size of the step, in float32 as the library keeps it."""
    divisor = {
        TokenMean: sum(len(r) for r in live),
        SequenceMean: len(live) * len(row),
        FixedLength: len(live) * getattr(aggregate, "tokens", 0),
    }[type(aggregate)]
    return float(np.float32(1) / np.float32(divisor))


def slow_loss(algorithm, rows, group, truncated, final):
    rewards = shaped_rewards(algorithm, rows)
    advantages, returns = slow_advantages(algorithm, rows, rewards, group, final)
    kept = [i for i in range(len(rows)) if not (algorithm.drop and truncated[i])]
    live = [rows[i] for i in kept]
    total = 0.0
    for i in kept:
        for k, action in enumerate(rows[i]):
            term = slow_surrogate(algorithm.surrogate, action, rows[i], advantages[i][k])
            if algorithm.correction is not None:
                term *= min(exp(action.old - action.rollout), algorithm.correction.cap)
            if algorithm.kl is not None and algorithm.kl.at == "loss":
                term += algorithm.kl.coef * estimate(action.new - action.ref, algorithm.kl.estimator)
            term -= algorithm.entropy * action.entropy
            if algorithm.critic is not None and algorithm.region is None:  # a trust region fits the critic itself
                term += algorithm.critic.coef * slow_value_error(algorithm.critic, action, returns[i][k])
            total += weight_of(algorithm.aggregate, rows[i], live) * term
    return total


# the penalty is float32, so its margin is a power of two
OPTIONS = {
    "as named": {},
    "no KL": {"kl": None},
    "k1 at the reward": {"kl": KL(0.3)},
    "k2 at the reward": {"kl": KL(0.3, estimator="k2")},
    "k3 at the reward": {"kl": KL(0.3, estimator="k3")},
    "k2 in the loss": {"kl": KL(0.3, at="loss", estimator="k2")},
    "k3 in the loss": {"kl": KL(0.3, at="loss")},
    "entropy": {"entropy": 0.01},
    "correction": {"correction": TruncatedImportance(cap=1.3)},
    "dual clip": {"surrogate": ClippedRatio(0.1, 0.3, dual=1.4)},
    "sequence": {"surrogate": ClippedRatio(0.05, 0.08, level="sequence")},
    "weight": {"surrogate": ClippedWeight(low=0.2, high=0.5)},
    "score function": {"surrogate": ScoreFunction()},
    "ratio": {"surrogate": Ratio()},
    "token mean": {"aggregate": TokenMean()},
    "sequence mean": {"aggregate": SequenceMean()},
    "fixed length": {"aggregate": FixedLength(16)},
    "drop": {"drop": OverlongFilter()},
    "shape": {"shape": OverlongPenalty(max_length=11, margin=4)},
    "everything": {
        "kl": KL(0.3, at="loss"),
        "entropy": 0.01,
        "correction": TruncatedImportance(cap=1.3),
        "drop": OverlongFilter(),
        "shape": OverlongPenalty(max_length=11, margin=4),
    },
}


def compare(algorithm):
    plain = ragged_batch(3, 1 if algorithm.name == "sft" else 3)
    reference = Bigram(7)
    models = Bigram(0, reference=reference)
    with torch.no_grad():
        before, ref = models.policy(plain), models.reference(plain)
        batch = algorithm.prepare(plain, models)
        models.nudge(0.15)
        after = models.policy(plain)
    value = algorithm.loss(models.policy(batch), batch, batch.size).value.item()
    rows = rows_of(plain, before, after, ref)
    final = torch.where(plain.truncated, before.final_values, 0.0).tolist()
    group, truncated = plain.group.tolist(), plain.truncated.tolist()
    assert value == pytest.approx(slow_loss(algorithm, rows, group, truncated, final), rel=1e-9, abs=1e-12)
    return value


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", GRADIENTS)
def test_loss_is_the_objective_as_loops(name, option):
    compare(replace(GRADIENTS[name], **OPTIONS[option]))


@pytest.mark.parametrize("critic", [Critic(), Critic(clip=None), Critic(huber=0.5), Critic(1.0, None, 0.3)], ids=repr)
def test_critics(critic):
    compare(replace(ALGORITHMS["ppo"], critic=critic))
    compare(replace(ALGORITHMS["ppo"], critic=critic, advantage=GAE(0.9, 0.5, whiten=False)))


def test_every_option_changes_the_loss():
    """So that no comparison above is of a knob that nobody reads."""
    grpo = ALGORITHMS["grpo"]
    values = {option: compare(replace(grpo, **changes)) for option, changes in OPTIONS.items()}
    same = {"sequence mean", "as named"}  # GRPO's own aggregate
    for option in set(OPTIONS) - same:
        assert abs(values[option] - values["as named"]) > 1e-6, option


LINKS = [LogSigmoid(), LogSigmoid(0.2), SquaredMargin(), Hinge()]


@pytest.mark.parametrize("link", LINKS, ids=repr)
@pytest.mark.parametrize("reward", [ImplicitReward(0.1), ImplicitReward(0.7, True), RewardHead()], ids=repr)
def test_preference_loss_is_the_mean_over_pairs(reward, link):
    algorithm = replace(DPO, reward=reward, link=link)
    plain = ragged_batch(3, 2)
    models = Bigram(0, reference=Bigram(7))
    batch = algorithm.prepare(plain, models)
    with torch.no_grad():
        before, ref, out = models.policy(plain), models.reference(plain), models.policy(plain)
    rows = rows_of(plain, before, out, ref)
    scores = []
    for i, row in enumerate(rows):
        ratio = sum(action.new - action.ref for action in row)
        ratio = ratio / len(row) if getattr(reward, "length_normalized", False) else ratio
        scores.append(out.scores[i].item() if isinstance(reward, RewardHead) else reward.beta * ratio)
    losses = []
    for first in range(0, len(rows), 2):
        winner, loser = (first, first + 1) if float(plain.rewards[first].sum()) == 1 else (first + 1, first)
        m, beta = scores[winner] - scores[loser], reward.beta
        if isinstance(link, LogSigmoid):
            s = link.label_smoothing
            losses.append((1 - s) * log(1 + exp(-m)) + s * log(1 + exp(m)))
        else:
            losses.append((m / beta - 1 / (2 * beta)) ** 2 if isinstance(link, SquaredMargin) else max(0.0, 1 - m))
    loss = algorithm.loss(models.policy(batch), batch, batch.size)
    assert loss.value.item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    margins = [(scores[i] - scores[i + 1]) * (1 if float(plain.rewards[i].sum()) == 1 else -1) for i in range(0, 12, 2)]
    assert loss.stats["rewards/margins"].item() == pytest.approx(sum(margins) / 6, rel=1e-9)
    assert loss.stats["rewards/accuracies"].item() == pytest.approx(sum(m > 0 for m in margins) / 6, rel=1e-6)
