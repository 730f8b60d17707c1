"""The formulas of docs/conformance.md in NumPy and float64, from their descriptions: no torch, no line of anybody's.

A drawn batch is rows of actions of unequal length, without gaps. Every count of it is a power of two, so that the
library's weights, which are float32, are the exact numbers.
"""

from dataclasses import dataclass

import numpy as np

LENGTHS = (1, 1, 2, 4, 8, 8, 4, 4)
BUDGET = 16


@dataclass(frozen=True)
class Drawn:
    """Two groups of four answers, or four pairs: the first of each is the chosen one. Lists have an array a row."""

    group: np.ndarray
    pair: np.ndarray
    rewards: list[np.ndarray]
    old: list[np.ndarray]
    new: list[np.ndarray]
    ref: list[np.ndarray]
    rollout: list[np.ndarray]
    values: list[np.ndarray]
    new_values: list[np.ndarray]
    credit: np.ndarray
    """An advantage for each row."""
    scores: np.ndarray
    after: np.ndarray
    """V after the last token of each row."""

    @property
    def totals(self):
        return np.array([row.sum() for row in self.rewards])


def drawn(seed):
    rng = np.random.default_rng(seed)
    old = [-np.abs(rng.normal(0, 2, n)) - 4 for n in LENGTHS]
    return Drawn(
        group=np.arange(8) // 4, pair=np.arange(8) // 2,
        rewards=[np.append(np.zeros(n - 1), rng.normal(1, 3)) + rng.normal(0, 0.1, n) for n in LENGTHS],
        old=old, new=[row + rng.normal(0, 0.3, len(row)) + rng.choice([0, 0, 1.5, 3], len(row)) for row in old],
        ref=[row + rng.normal(0, 0.5, len(row)) for row in old],
        rollout=[row + rng.normal(0, 1, len(row)) for row in old],
        values=[rng.normal(0, 1, n) for n in LENGTHS], new_values=[rng.normal(0, 1, n) for n in LENGTHS],
        credit=rng.normal(0, 1, 8) * np.array([1, -1, -1, 1, -1, 1, -1, 1]), scores=rng.normal(0, 1, 8),
        after=rng.normal(0, 1, 8),
    )  # fmt: skip


# ---- advantages: an array a row, end to end


def spread(d, rows):
    return np.concatenate([np.full(n, value) for n, value in zip(LENGTHS, rows, strict=True)])


def standardised(ddof, eps):
    def formula(d):
        out = np.zeros(8)
        for name in (0, 1):
            same = d.group == name
            rewards = d.totals[same]
            mean = sum(rewards) / 4
            out[same] = (rewards - mean) / (np.sqrt(sum((rewards - mean) ** 2) / (4 - ddof)) + eps)
        return spread(d, out)

    return formula


def centred(d):
    return spread(d, [total - d.totals[d.group == name].mean() for total, name in zip(d.totals, d.group, strict=True)])


def others(d, i):
    return np.array([d.totals[j] for j in range(8) if j != i and d.group[j] == d.group[i]])


def against_others(d):
    return spread(d, [total - others(d, i).mean() for i, total in enumerate(d.totals)])


def scaled_by_others(d):
    rows = [(total - others(d, i).mean()) / (others(d, i).std(ddof=1) + 1e-6) for i, total in enumerate(d.totals)]
    return spread(d, rows)


def whitened(inner, scale):
    def formula(d):
        values = inner(d)
        return (values - values.mean()) * scale(values)

    return formula


def biased(values):
    return 1 / values.std()


def with_eps(values):
    return 1 / np.sqrt(values.var() + 1e-8)


def floored(values):
    return 1 / np.sqrt(max(values.var(), 1e-8))


def unbiased(values):
    return 1 / np.sqrt(values.var(ddof=1) + 1e-8)


def returns(d):
    return np.concatenate([row[::-1].cumsum()[::-1] for row in d.rewards])


def less_group_mean(d):
    return centred(d)


def gae(lam, cut=None):
    """`cut`: whether V after the last token follows it; None where no row was cut."""

    def formula(d):
        out = []
        for row in range(8):
            follow = d.after[row] if cut else 0.0
            after = np.append(d.values[row][1:], follow)
            delta = d.rewards[row] + after - d.values[row]
            out += [sum(lam**k * delta[t + k] for k in range(len(delta) - t)) for t in range(len(delta))]
        return np.array(out)

    return formula


# ---- losses of tokens


def rows_of(d):
    return zip(d.new, d.old, d.credit, strict=True)


def clipped(low, high, dual=None):
    def formula(d):
        out = []
        for new, old, credit in rows_of(d):
            ratio = np.exp(new - old)
            gain = np.minimum(ratio * credit, np.clip(ratio, 1 - low, 1 + high) * credit)
            out.append(-(gain if dual is None or credit >= 0 else np.maximum(gain, dual * credit)))
        return np.concatenate(out)

    return formula


def two_sided(low, high, delta):
    def formula(d):
        return np.concatenate([
            -np.minimum(np.minimum(np.exp(new - old), delta) * credit,
                        np.clip(np.exp(new - old), 1 - low, 1 + high) * credit)
            for new, old, credit in rows_of(d)
        ])  # fmt: skip

    return formula


def sequence(low, high, level="mean", most=np.inf):
    def formula(d):
        out = []
        for new, old, credit in rows_of(d):
            log_ratio = min((new - old).sum() / (len(new) if level == "mean" else 1), most)
            ratio = np.exp(log_ratio)
            out.append(np.full(len(new), -min(ratio * credit, np.clip(ratio, 1 - low, 1 + high) * credit)))
        return np.concatenate(out)

    return formula


def weighted(least, most):
    def formula(d):
        return np.concatenate([-np.clip(np.exp(n - o), least, most) * credit * n for n, o, credit in rows_of(d)])

    return formula


def score_function(d):
    return np.concatenate([-credit * new for new, _, credit in rows_of(d)])


def importance(least, most):
    def formula(d):
        return np.concatenate([np.clip(np.exp(o - m), least, most) for o, m in zip(d.old, d.rollout, strict=True)])

    return formula


# ---- sums: the weight of each token


def tokens_mean(d):
    return np.full(sum(LENGTHS), 1 / sum(LENGTHS))


def answers_mean(d):
    return np.concatenate([np.full(n, 1 / (8 * n)) for n in LENGTHS])


def constant(divisor):
    return lambda d: np.full(sum(LENGTHS), 1 / divisor)


# ---- KL: the penalty of each token with the sign of the loss (+) or of the reward (−)


def third(coef, clamp=None):
    def formula(d):
        x = np.concatenate([ref - new for new, ref in zip(d.new, d.ref, strict=True)])
        k3 = np.exp(np.clip(x, -20, 20) if clamp else x) - x - 1
        return coef * (np.clip(k3, -clamp, clamp) if clamp else k3)

    return formula


def first(coef, clamp):
    def formula(d):
        return -coef * np.concatenate([np.clip(o - r, -clamp, clamp) for o, r in zip(d.old, d.ref, strict=True)])

    return formula


OBSERVED = (0.02, 0.09, 0.1, 0.11, 0.3)
"""Nats per token."""


def controlled(share):
    return lambda d: np.array([0.05 * (1 + share * np.clip(kl / 0.1 - 1, -0.2, 0.2)) for kl in OBSERVED])


def punished(longest, margin, least=-np.inf):
    def formula(lengths):
        return np.maximum(np.minimum(-(lengths - (longest - margin)) / margin, 0), least)

    return formula


# ---- the critic, and pairs


def squared(coef, clip=None):
    def formula(d):
        new, old = np.concatenate(d.new_values), np.concatenate(d.values)
        target = returns(d)
        error = (new - target) ** 2
        near = error if clip is None else (old + np.clip(new - old, -clip, clip) - target) ** 2
        return coef * np.maximum(error, near)

    return formula


def log_ratios(d, averaged=False):
    each = np.array(
        [(new - ref).mean() if averaged else (new - ref).sum() for new, ref in zip(d.new, d.ref, strict=True)]
    )
    return each[::2] - each[1::2]


def minus_log_sigmoid(x):
    return np.log1p(np.exp(-x))


def preferred(beta, smoothing=0.0):
    def formula(d):
        x = beta * log_ratios(d)
        return ((1 - smoothing) * minus_log_sigmoid(x) + smoothing * minus_log_sigmoid(-x)).mean()

    return formula


def identity(beta, averaged):
    return lambda d: ((log_ratios(d, averaged) - 1 / (2 * beta)) ** 2).mean()


def bradley_terry(center=0.0):
    def formula(d):
        chosen, rejected = d.scores[::2], d.scores[1::2]
        return (minus_log_sigmoid(chosen - rejected) + center * (chosen + rejected) ** 2).mean()

    return formula


def everyone(formula, **others):
    """The same for all, but for those named."""
    who = {
        "paper": "paper",
        "oneloop": "oneloop",
        "TRL": "trl",
        "verl": "verl",
        "OpenRLHF": "openrlhf",
        "NeMo-RL": "nemo",
    }
    return {name: others.get(key, formula) for name, key in who.items()}


PPO_CLIP = clipped(0.2, 0.2)
FORMULAS = {
    "group-std": everyone(standardised(1, 1e-6), paper=standardised(0, 0), oneloop=standardised(0, 1e-6),
                          trl=standardised(1, 1e-4), openrlhf=standardised(1, 1e-9), nemo=scaled_by_others),
    "no-std": everyone(centred, nemo=against_others),
    "leave-one-out": everyone(against_others),
    "rloo-loss": everyone(score_function, trl=sequence(0.2, 0.2, "sum"), verl=clipped(0.2, 0.2, 3), openrlhf=PPO_CLIP),
    "whitened": everyone(whitened(returns, biased), oneloop=whitened(returns, with_eps),
                         verl=whitened(returns, unbiased), openrlhf=whitened(returns, floored),
                         nemo=whitened(less_group_mean, biased)),
    "clip": everyone(PPO_CLIP, verl=clipped(0.2, 0.2, 3)),
    "two-sided": everyone(clipped(0.2, 0.2, 3), trl=two_sided(0.2, 0.2, 3)),
    "dapo-clip": everyone(clipped(0.2, 0.28), trl=PPO_CLIP, verl=clipped(0.2, 0.28, 3),
                          openrlhf=clipped(0.2, 0.27), nemo=clipped(0.2, 0.28, 10)),
    "gspo": everyone(sequence(0.2, 0.2), paper=sequence(3e-4, 4e-4), oneloop=sequence(3e-4, 4e-4),
                     verl=sequence(3e-4, 4e-4, most=10)),
    "cispo": everyone(weighted(0.8, 1.2), paper=weighted(0, 5), oneloop=weighted(0, 5), trl=weighted(0, 0.2)),
    "tis": everyone(importance(0, 2), trl=importance(0, 3), openrlhf=importance(0.5, 5)),
    "grpo-mean": everyone(tokens_mean, paper=answers_mean, oneloop=answers_mean),
    "dr-divisor": everyone(constant(8 * BUDGET), verl=constant(BUDGET), openrlhf=tokens_mean),
    "kl": everyone(third(0.04), verl=third(0.001, 10), openrlhf=first(0.01, 10), nemo=third(0.01, 10)),
    "adaptive": everyone(controlled(256 / 10000), paper=controlled(0.1)),
    "overlong": everyone(punished(20480, 4096, -1), trl=punished(1280, 256, -1), verl=punished(20480, 4096),
                         nemo=punished(14336, 2048)),
    "gae": everyone(gae(0.95), verl=gae(1.0), openrlhf=gae(1.0)),
    "whitening": everyone(whitened(gae(0.95), unbiased), paper=whitened(gae(0.95), biased),
                          oneloop=whitened(gae(0.95), with_eps), verl=whitened(gae(1.0), unbiased),
                          openrlhf=whitened(gae(1.0), floored)),
    "cut": everyone(whitened(gae(0.95, cut=False), with_eps), paper=whitened(gae(0.95, cut=True), with_eps),
                    oneloop=whitened(gae(0.95, cut=True), with_eps)),
    "value": everyone(squared(0.5), oneloop=squared(0.25, 0.2), trl=squared(0.05, 0.2), verl=squared(0.5, 0.5),
                      openrlhf=squared(0.5, 0.5)),
    "dpo": everyone(preferred(0.1), nemo=preferred(0.05)),
    "smoothing": everyone(preferred(0.1, 0.1), trl=preferred(0.1)),
    "ipo": everyone(identity(0.1, False), trl=identity(0.1, True)),
    "reward-model": everyone(bradley_terry(), trl=bradley_terry(0.01)),
}  # fmt: skip
"""By a piece's key, and whose it is. Where a library has no such method, its entry is not asked for."""
