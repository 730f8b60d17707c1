"""The library against formulas that share no line with it, on a thousand random batches each.

float64, rows of 0 to 8 actions with gaps between them, groups of any size in any order, NaN on every masked slot.
"""

from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import papers
import pytest
import torch

from oneloop.algorithms import ALGORITHMS, DPO, KTO, PPO, Critic, PolicyGradient
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.advantage import GAE, BatchWhitened, GroupRelative, LeaveOneOut, NoBaseline, whiten
from oneloop.objective.aggregate import FixedLength, SequenceMean, TokenMean
from oneloop.objective.correction import TruncatedImportance, logprob_gap
from oneloop.objective.critic import explained_variance, value_loss
from oneloop.objective.divergence import KL, AdaptiveKL, exact_kl, kl_estimate
from oneloop.objective.logprobs import HeadMemory, logits_logprobs, token_logprobs
from oneloop.objective.preference import Hinge, ImplicitReward, LogOdds, LogSigmoid, RewardHead, SquaredMargin
from oneloop.objective.select import OverlongFilter
from oneloop.objective.shaping import OverlongPenalty
from oneloop.objective.surrogate import ClippedRatio, ClippedWeight, Ratio, ScoreFunction

BATCHES = 1000
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
every_batch = partial(range, BATCHES)


@dataclass
class Drawn:
    """A random batch as arrays, NaN wherever no action stands."""

    mask: np.ndarray
    group: np.ndarray
    rewards: np.ndarray
    old: np.ndarray
    new: np.ndarray
    ref: np.ndarray
    rollout: np.ndarray
    values: np.ndarray
    new_values: np.ndarray
    entropy: np.ndarray
    last: np.ndarray
    truncated: np.ndarray

    @classmethod
    @cache
    def by(cls, seed: int, *, pairs: bool = False, empty: bool = True) -> "Drawn":
        rng = np.random.default_rng(seed)
        rows, width = 2 * rng.integers(1, 4) if pairs else rng.integers(1, 6), rng.integers(2, 8)
        mask = rng.random((rows, width)) < 0.7
        mask[:, 0] = False
        if not empty:
            mask[~mask.any(1), 1] = True

        def noise(size: float) -> np.ndarray:
            return np.where(mask, size * rng.standard_normal((rows, width)), np.nan)

        # ties half of the time, one reward at the end or one everywhere
        rewards = np.round(noise(1.0)) if seed % 2 else noise(1.0)
        old = -np.abs(noise(2.0))
        far = noise(0.3) + np.where(rng.random((rows, width)) < 0.02, 30 * rng.choice([-1, 1]), 0)
        order = rng.permutation(np.arange(rows) // 2) if pairs else rng.integers(0, 1 + rows // 2, rows)
        return cls(
            mask=mask, group=order, rewards=rewards, old=old, new=old + far, ref=old + noise(0.5),
            rollout=old + noise(0.4), values=noise(1.0), new_values=noise(1.0), entropy=np.abs(noise(1.0)),
            last=rng.standard_normal(rows), truncated=rng.random(rows) < 0.3,
        )  # fmt: skip

    def rows(self, field: np.ndarray) -> list[np.ndarray]:
        """Each row's actions alone."""
        return [row[acts] for row, acts in zip(field, self.mask, strict=True)]

    @property
    def lengths(self) -> list[int]:
        return self.mask.sum(1).tolist()

    @property
    def totals(self) -> np.ndarray:
        return np.array([row.sum() for row in self.rows(self.rewards)])

    def spread(self, rows: list[np.ndarray]) -> np.ndarray:
        """Back to slots, 0 between actions."""
        out = np.zeros(self.mask.shape)
        out[self.mask] = np.concatenate([*rows, []])
        return out

    def batch(self) -> Batch:
        tensor = torch.from_numpy
        return Batch(
            tokens=torch.zeros(self.mask.shape, dtype=torch.int64),
            mask=tensor(self.mask),
            group=tensor(self.group),
            rewards=tensor(self.rewards),
            truncated=tensor(self.truncated),
            rollout_logprobs=tensor(self.rollout),
            lengths=torch.full((len(self.mask),), self.mask.shape[1]),
        )


def same(ours: torch.Tensor, theirs: np.ndarray | float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, **CLOSE)


# ---- advantages


def of_rows(drawn: Drawn, each: np.ndarray) -> list[np.ndarray]:
    return [np.full(length, value) for length, value in zip(drawn.lengths, each, strict=True)]


def grouped(drawn: Drawn, formula) -> list[np.ndarray]:
    """`formula` of the rows with actions; the others are not in anyone's group."""
    acts = drawn.mask.any(1)
    each = np.zeros(len(acts))
    each[acts] = formula(drawn.totals[acts], drawn.group[acts])
    return of_rows(drawn, each)


def paper_advantages(estimator, drawn: Drawn, rewards: list[np.ndarray], last: np.ndarray):
    """Rows of advantages, and of returns where there is a critic."""
    if isinstance(estimator, GAE):
        values = drawn.rows(drawn.values)
        rows = [
            papers.gae(*row, estimator.gamma, estimator.lam) for row in zip(rewards, values, last, strict=True)
        ]  # fmt: skip
        returns = [a + v for a, v in zip(rows, values, strict=True)]
        return (papers.whiten(rows) if estimator.whiten else rows), returns
    if isinstance(estimator, GroupRelative):
        change = replace_totals(drawn, rewards)
        how = {"scale": estimator.scale, "ddof": estimator.ddof, "eps": estimator.eps}
        return grouped(change, partial(papers.group_relative, **how)), None
    if isinstance(estimator, LeaveOneOut):
        return grouped(replace_totals(drawn, rewards), papers.leave_one_out), None
    rows = [papers.to_go(row, estimator.gamma) for row in rewards]
    return (papers.whiten(rows) if isinstance(estimator, BatchWhitened) else rows), None


def replace_totals(drawn: Drawn, rewards: list[np.ndarray]) -> Drawn:
    return replace(drawn, rewards=drawn.spread(rewards))


ESTIMATORS = {
    "GAE": lambda rng: GAE(rng.uniform(0.5, 1), rng.uniform(0, 1), bool(rng.integers(2))),
    "GroupRelative": lambda rng: GroupRelative(
        "std" if rng.integers(3) else "none", int(rng.integers(2)), 10.0 ** rng.integers(-6, 0)
    ),
    "LeaveOneOut": lambda rng: LeaveOneOut(),
    "BatchWhitened": lambda rng: BatchWhitened(rng.uniform(0, 1)),
    "NoBaseline": lambda rng: NoBaseline(rng.uniform(0, 1)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_advantages(name):
    for seed in every_batch():
        drawn, estimator = Drawn.by(seed), ESTIMATORS[name](np.random.default_rng(seed))
        batch, values = drawn.batch(), torch.from_numpy(drawn.values)
        bootstrap = np.where(drawn.truncated, drawn.last, 0.0)
        ours = estimator(batch.rewards, values, batch.mask, batch.group, bootstrap=torch.from_numpy(bootstrap))
        wanted, returns = paper_advantages(estimator, drawn, drawn.rows(drawn.rewards), bootstrap)
        same(ours.advantages, drawn.spread(wanted))
        assert (ours.returns is None) == (returns is None)
        if returns is not None:
            same(ours.returns, drawn.spread(returns))


def test_whitening():
    for seed in every_batch():
        drawn = Drawn.by(seed)
        same(
            whiten(torch.from_numpy(drawn.values), torch.from_numpy(drawn.mask)),
            drawn.spread(papers.whiten(drawn.rows(drawn.values))),
        )


# ---- divergences


def test_kl_estimates():
    for seed in every_batch():
        x, estimator = np.random.default_rng(seed).normal(0, 3, 6), ("k1", "k2", "k3")[seed % 3]
        same(kl_estimate(torch.from_numpy(x), estimator), papers.kl(x, estimator))


def test_exact_kl():
    for seed in every_batch():
        logits, ref = np.random.default_rng(seed).normal(0, 3, (2, 4, 5))
        if seed % 4 == 0:
            logits[0, 0] = -np.inf  # outside the policy's support
        same(exact_kl(torch.from_numpy(logits), torch.from_numpy(ref)), papers.exact_kl(logits, ref))


def test_the_adaptive_coefficient():
    for seed in every_batch():
        target, horizon, clip, coef, observed, n = np.random.default_rng(seed).uniform(0.01, 1, 6).tolist()
        ours = AdaptiveKL(target, 100 * horizon, clip).update(coef, observed, int(1000 * n))
        assert ours == pytest.approx(
            papers.adapted(coef, observed, int(1000 * n), target, 100 * horizon, clip), rel=1e-9
        )


# ---- surrogates, with their gradients

SURROGATES = {
    "ScoreFunction": lambda rng: (ScoreFunction(), papers.score_function),
    "Ratio": lambda rng: (Ratio(), papers.ratio),
    "ClippedRatio": lambda rng: _ratio(
        ClippedRatio(
            rng.uniform(0, 0.3),
            rng.uniform(0, 0.3),
            level="sequence" if rng.integers(3) == 0 else "token",
            dual=rng.uniform(1.01, 2) if rng.integers(2) else None,
        )
    ),
    "ClippedWeight": lambda rng: _weight(
        ClippedWeight(*(bound if rng.integers(3) else None for bound in rng.uniform(0, 1, 2).tolist()))
    ),
}


def _ratio(surrogate):
    low, high, level, dual = surrogate.low, surrogate.high, surrogate.level, surrogate.dual
    return surrogate, partial(papers.clipped_ratio, low=low, high=high, level=level, dual=dual)


def _weight(surrogate):
    return surrogate, partial(papers.clipped_weight, low=surrogate.low, high=surrogate.high)


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates(name):
    for seed in every_batch():
        drawn, (surrogate, formula) = Drawn.by(seed), SURROGATES[name](np.random.default_rng(seed))
        new, old, advantages = drawn.rows(drawn.new), drawn.rows(drawn.old), drawn.rows(drawn.values)
        if (
            getattr(surrogate, "level", "") == "sequence"
        ):  # its token form is the paper's where a row shares one advantage
            advantages = [np.full(len(row), row[:1]) for row in advantages]
        found = [formula(*row) for row in zip(new, old, advantages, strict=True) if len(row[0])]
        logprobs = torch.from_numpy(drawn.new).requires_grad_()
        loss, _ = surrogate(
            logprobs,
            torch.from_numpy(drawn.old),
            torch.from_numpy(drawn.spread(advantages)),
            torch.from_numpy(drawn.mask),
        )
        same(loss, drawn.spread([row for row, _ in found]))
        loss.sum().backward()
        same(torch.nan_to_num(logprobs.grad), drawn.spread([slope for _, slope in found]))


def test_truncated_importance():
    for seed in every_batch():
        drawn, cap = Drawn.by(seed), np.random.default_rng(seed).uniform(0.5, 3)
        ours = TruncatedImportance(cap)(torch.from_numpy(drawn.new), torch.from_numpy(drawn.old))
        same(ours[torch.from_numpy(drawn.mask)], papers.truncated_importance(drawn.new, drawn.old, cap)[drawn.mask])


def test_the_gap_to_the_sampler():
    for seed in every_batch():
        drawn = Drawn.by(seed, empty=False)
        old, rollout = torch.from_numpy(drawn.old), torch.from_numpy(drawn.rollout)
        share = np.abs(np.nan_to_num(drawn.values))
        ours = logprob_gap(old, rollout, torch.from_numpy(drawn.mask), torch.from_numpy(share))
        gaps = np.abs(drawn.old - drawn.rollout)
        same(ours["rollout/logprob_gap"], np.nansum(share * gaps))
        same(ours["rollout/logprob_gap/max"], np.nanmax(gaps))


# ---- the critic


def test_the_critics_loss():
    for seed in every_batch():
        rng = np.random.default_rng(seed)
        values, old, returns = rng.normal(0, 1, (3, 7))
        clip = rng.uniform(0.05, 0.5) if rng.integers(2) else None
        huber = rng.uniform(0.1, 1) if rng.integers(2) else None
        ours = value_loss(*map(torch.from_numpy, (values, old, returns)), clip=clip, huber=huber)
        same(ours, papers.value_loss(values, old, returns, clip, huber))


def test_explained_variance():
    for seed in every_batch():
        drawn = Drawn.by(seed, empty=False)
        if drawn.mask.sum() > 1:
            ours = explained_variance(
                torch.from_numpy(drawn.values), torch.from_numpy(drawn.new_values), torch.from_numpy(drawn.mask)
            )
            wanted = papers.explained_variance(drawn.values[drawn.mask], drawn.new_values[drawn.mask])
            assert float(ours) == pytest.approx(wanted, rel=1e-6)  # a float32 number: a metric, in no gradient


# ---- aggregation

AGGREGATES = {TokenMean(): "tokens", SequenceMean(): "sequences", FixedLength(16): "constant"}


@pytest.mark.parametrize("aggregate", AGGREGATES, ids=repr)
def test_aggregation(aggregate):
    for seed in every_batch():
        drawn = Drawn.by(seed)
        batch = drawn.batch()
        same(aggregate(batch.mask, batch.size), drawn.spread(of_rows(drawn, weight(aggregate, drawn.lengths))))


def weight(aggregate, lengths) -> np.ndarray:
    return papers.weights(lengths, AGGREGATES[aggregate], 16)


# ---- log-probs


def test_log_probs_and_entropy():
    for seed in every_batch():
        rng = np.random.default_rng(seed)
        hidden, head, temperature = rng.normal(0, 1, (5, 3)), rng.normal(0, 2, (6, 3)), rng.uniform(0.3, 2)
        targets = rng.integers(0, 6, 5)
        table = papers.softmax(hidden @ head.T / temperature)
        wanted = np.log(table[np.arange(5), targets]), -(table * np.log(table)).sum(-1)
        tensors = [torch.from_numpy(x) for x in (hidden, head, targets)]
        ours = token_logprobs(*tensors, temperature=temperature, memory=HeadMemory(64, 64))
        plain = logits_logprobs(tensors[0] @ tensors[1].T, tensors[2], temperature)
        for found in (ours, plain):
            same(found[0], wanted[0])
            same(found[1], wanted[1])


# ---- shaping


def test_overlong_punishment():
    for seed in every_batch():
        rng = np.random.default_rng(seed)
        margin = 2 ** int(rng.integers(0, 5))  # its division is float32
        longest, lengths, rewards = margin + int(rng.integers(0, 9)), rng.integers(0, 60, 5), rng.normal(0, 1, 5)
        ours = OverlongPenalty(longest, margin)(torch.from_numpy(rewards), torch.from_numpy(lengths))
        same(ours, [papers.overlong(r, n, longest, margin) for r, n in zip(rewards, lengths, strict=True)])


# ---- whole methods: from rewards to the loss of an optimizer step


class Given:
    """Implements `oneloop.ports.Models` with numbers that are there: of the policy before the update, and after it."""

    def __init__(self, drawn: Drawn):
        self._drawn = drawn

    def policy(self, batch):
        old, values, last = (torch.from_numpy(x) for x in (self._drawn.old, self._drawn.values, self._drawn.last))
        return PolicyOutput(old, values=values, final_values=last)

    def reference(self, batch):
        return torch.from_numpy(self._drawn.ref)

    def step(self):
        raise AssertionError("nothing is trained")

    def after(self) -> PolicyOutput:
        """After an update or two."""
        new, entropy, values = (
            torch.from_numpy(x) for x in (self._drawn.new, self._drawn.entropy, self._drawn.new_values)
        )
        return PolicyOutput(new, entropy, values, torch.from_numpy(self._drawn.last))


GRADIENTS = [value for value in ALGORITHMS.values() if isinstance(value, PolicyGradient)]


def any_method(rng) -> PolicyGradient:
    """A named method with any of its pieces changed."""
    method = replace(GRADIENTS[rng.integers(len(GRADIENTS))], aggregate=list(AGGREGATES)[rng.integers(3)], shape=None)
    kinds = [None, KL(0.3), KL(0.2, estimator="k3"), KL(0.3, at="loss"), KL(0.1, at="loss", estimator="k2")]
    options = {
        "kl": kinds[rng.integers(5)],
        "entropy": 0.02,
        "correction": TruncatedImportance(1.2),
        "drop": OverlongFilter(),
        "shape": OverlongPenalty(6, 4),
    }
    return replace(method, **{name: value for name, value in options.items() if rng.integers(2)})


def paper_rewards(method: PolicyGradient, drawn: Drawn) -> list[np.ndarray]:
    rewards = [row.copy() for row in drawn.rows(drawn.rewards)]
    for row, old, ref in zip(rewards, drawn.rows(drawn.old), drawn.rows(drawn.ref), strict=True):
        if method.shape is not None and len(row):
            row[-1] += papers.overlong(0.0, len(row), method.shape.max_length, method.shape.margin)
        if method.kl is not None and method.kl.at == "reward":
            row -= method.kl.coef * papers.kl(old - ref, method.kl.estimator)
    return rewards


def paper_loss(method: PolicyGradient, drawn: Drawn) -> float:
    last = np.where(drawn.truncated, drawn.last, 0.0)
    advantages, returns = paper_advantages(method.advantage, drawn, paper_rewards(method, drawn), last)
    trained = ~drawn.truncated if method.drop else np.full(len(drawn.mask), True)
    lengths = np.where(trained, drawn.lengths, 0)
    share = weight(method.aggregate, lengths)
    fields = [drawn.rows(getattr(drawn, name)) for name in ("new", "old", "ref", "rollout", "entropy", "new_values")]
    total = 0.0
    for i, (new, old, ref, rollout, entropy, values) in enumerate(zip(*fields, strict=True)):
        if not lengths[i]:
            continue
        terms = paper_surrogate(method.surrogate)(new, old, advantages[i])[0]
        if method.correction is not None:
            terms = terms * papers.truncated_importance(old, rollout, method.correction.cap)
        if method.kl is not None and method.kl.at == "loss":
            terms = terms + method.kl.coef * papers.kl(new - ref, method.kl.estimator)
        terms = terms - method.entropy * entropy
        if method.critic is not None and method.region is None and returns is not None:
            old_values = drawn.rows(drawn.values)[i]
            error = papers.value_loss(values, old_values, returns[i], method.critic.clip, method.critic.huber)
            terms = terms + method.critic.coef * error
        total += share[i] * terms.sum()
    return total


def paper_surrogate(surrogate):
    if isinstance(surrogate, ScoreFunction):
        return papers.score_function
    if isinstance(surrogate, Ratio):
        return papers.ratio
    return (_ratio if isinstance(surrogate, ClippedRatio) else _weight)(surrogate)[1]


def test_policy_gradients_from_rewards_to_the_loss():
    tried = set()
    for seed in every_batch():
        rng = np.random.default_rng(seed)
        method, drawn = any_method(rng), Drawn.by(seed)
        if method.critic is not None and rng.integers(2):
            method = replace(method, critic=Critic(0.7, None if rng.integers(2) else 0.3, 0.5))
        given = Given(drawn)
        batch = method.prepare(drawn.batch(), given)
        same(method.loss(given.after(), batch, batch.size).value, paper_loss(method, drawn))
        tried.add(method.name)
    assert tried == {method.name for method in GRADIENTS}


REWARDS = [
    lambda rng: ImplicitReward(rng.uniform(0.05, 1)),
    lambda rng: ImplicitReward(rng.uniform(0.5, 3), True, bool(rng.integers(2))),
    lambda rng: LogOdds(),
    lambda rng: RewardHead(),
]
LINKS = [
    lambda rng: LogSigmoid(rng.uniform(0, 0.49), rng.uniform(0, 1)),
    lambda rng: SquaredMargin(),
    lambda rng: Hinge(),
]


def paper_reward(reward, drawn: Drawn) -> list[float]:
    if isinstance(reward, RewardHead):
        return drawn.last.tolist()
    if isinstance(reward, LogOdds):
        return [papers.log_odds(row) for row in drawn.rows(drawn.new)]
    refs = drawn.rows(drawn.ref) if reward.reference else [None] * len(drawn.mask)
    rows = zip(drawn.rows(drawn.new), refs, strict=True)
    return [papers.implicit_reward(new, ref, reward.beta, reward.length_normalized) for new, ref in rows]


def paper_link(link, margin: float, beta: float) -> float:
    if isinstance(link, LogSigmoid):
        return papers.smoothed(margin, link.label_smoothing, link.margin)
    return papers.squared(margin, beta) if isinstance(link, SquaredMargin) else papers.hinge(margin)


def test_preferences():
    for seed in every_batch():
        rng, drawn = np.random.default_rng(seed), Drawn.by(seed, pairs=True, empty=False)
        reward, link = REWARDS[seed % 4](rng), LINKS[seed % 3](rng)
        better = rng.integers(0, 2, len(drawn.mask) // 2)
        labels = np.array(
            [float(seen_before(drawn.group, i) == better[drawn.group[i]]) for i in range(len(drawn.mask))]
        )
        drawn = replace_totals(drawn, [np.full(n, label / n) for n, label in zip(drawn.lengths, labels, strict=True)])
        sft = 0.0 if isinstance(reward, RewardHead) else rng.uniform(0, 1)
        method = replace(DPO, reward=reward, link=link, weight=rng.uniform(0.1, 2), sft=sft, center=rng.uniform(0, 0.1))
        offset = rng.uniform(0, 1, len(labels))
        given = Given(drawn)
        batch = replace(method.prepare(drawn.batch(), given), offset=torch.from_numpy(offset))
        rewards, terms = paper_reward(reward, drawn), []
        for pair in range(len(better)):
            w, loser = sorted(np.flatnonzero(drawn.group == pair), key=lambda row: -labels[row])
            lead = rewards[w] - rewards[loser] - (offset[w] - offset[loser])
            terms.append(
                method.weight * paper_link(link, lead, reward.beta)
                - sft * drawn.rows(drawn.new)[w].mean()
                + method.center * (rewards[w] + rewards[loser]) ** 2
            )
        same(method.loss(given.after(), batch, batch.size).value, np.mean(terms))


def seen_before(group: np.ndarray, row: int) -> bool:
    return bool((group[:row] == group[row]).any())


def test_kto():
    for seed in every_batch():
        rng, drawn = np.random.default_rng(seed), Drawn.by(seed)
        good = rng.integers(0, 2, len(drawn.mask))
        drawn = replace_totals(drawn, [np.full(n, g / max(n, 1)) for n, g in zip(drawn.lengths, good, strict=True)])
        weights = rng.uniform(0.1, 2, 2).tolist()
        method = replace(KTO, reward=ImplicitReward(rng.uniform(0.05, 1)), desirable=weights[0], undesirable=weights[1])
        z = rng.uniform(0, 1)
        given = Given(drawn)
        batch = replace(
            drawn.batch(), ref_logprobs=given.reference(None), offset=torch.full((len(good),), z, dtype=torch.float64)
        )
        acting = [i for i, n in enumerate(drawn.lengths) if n]
        rewards = paper_reward(method.reward, drawn)
        wanted = sum(papers.kto(rewards[i], good[i], z, *weights) for i in acting) / max(len(acting), 1)
        same(method.loss(given.after(), batch, batch.size).value, wanted)


# ---- that it can fail


def test_another_formula_would_show():
    """ddof 1 in the place of 0, a mean over rows in the place of tokens, and λ of another size."""
    drawn = Drawn.by(7, empty=False)
    batch = drawn.batch()
    ours = GroupRelative(ddof=1)(batch.rewards, None, batch.mask, batch.group).advantages
    wanted, _ = paper_advantages(GroupRelative(), drawn, drawn.rows(drawn.rewards), drawn.last)
    with pytest.raises(AssertionError):
        same(ours, drawn.spread(wanted))
    with pytest.raises(AssertionError):
        same(TokenMean()(batch.mask, batch.size), drawn.spread(of_rows(drawn, weight(SequenceMean(), drawn.lengths))))
    near = replace(PPO, advantage=GAE(lam=0.9500001))
    given = Given(drawn)
    prepared = near.prepare(batch, given)
    with pytest.raises(AssertionError):
        same(near.loss(given.after(), prepared, prepared.size).value, paper_loss(PPO, drawn))
