"""The methods' formulas in NumPy and float64, written from the papers: no torch, and no line of the library's.

A batch is rows of actions. A row is a list of numbers, one per action; what stands between actions is not there.
"""

import numpy as np

BOUND = 20.0
"""Nats at which the library cuts a log-ratio, which no paper does."""


# ---- advantages


def gae(rewards, values, last, gamma, lam):
    """Â_t = Σ_l (γλ)^l δ_(t+l), δ_t = r_t + γ V_(t+1) − V_t: arXiv:1506.02438, eq. 16, as its double sum."""
    after = np.append(values[1:], last)
    delta = rewards + gamma * after - values
    return np.array([sum((gamma * lam) ** k * delta[t + k] for k in range(len(delta) - t)) for t in range(len(delta))])


def whiten(rows):
    """(x − mean)/√(var + 1e-8) over all numbers of all rows."""
    every = np.concatenate([*rows, []])
    if len(every) == 0 or every.min() == every.max():
        return [0 * row for row in rows]
    return [(row - every.mean()) / np.sqrt(((every - every.mean()) ** 2).mean() + 1e-8) for row in rows]


def group_relative(totals, group, scale, ddof, eps):
    """(R_i − mean R)/(std R + ε): arXiv:2402.03300, section 4.1.2; without the std arXiv:2503.20783."""
    out = []
    for total, name in zip(totals, group, strict=True):
        same = totals[group == name]
        if same.min() == same.max():
            out.append(0.0)
        else:
            std = np.sqrt(((same - same.mean()) ** 2).sum() / (len(same) - ddof))
            out.append((total - same.mean()) / (std + eps if scale == "std" else 1))
    return np.array(out)


def leave_one_out(totals, group):
    """R_i − 1/(G−1) Σ_(j≠i) R_j: arXiv:2402.14740, section 3."""
    out = []
    for i, total in enumerate(totals):
        others = [totals[j] for j in range(len(totals)) if j != i and group[j] == group[i]]
        out.append(total - np.mean(others) if others else 0.0)
    return np.array(out)


def to_go(rewards, gamma):
    """G_t = Σ_(k≥t) γ^(k−t) r_k."""
    return np.array([sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))])


# ---- divergences


def kl(x, estimator):
    """Schulman 2020, x = log π_θ − log π_ref."""
    return {"k1": x, "k2": x**2 / 2, "k3": np.exp(-np.maximum(x, -BOUND)) - 1 + np.maximum(x, -BOUND)}[estimator]


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def exact_kl(logits, ref):
    """Σ_v π(v) log π(v)/π_ref(v)."""
    p, q = softmax(logits), softmax(ref)
    return (p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1))).sum(-1)


def adapted(coef, observed, n, target, horizon, clip):
    """arXiv:1909.08593, eq. 10, down to a hundredth at most."""
    return coef * max(1 + np.clip(observed / target - 1, -clip, clip) * n / horizon, 0.01)


# ---- surrogates: loss of each action of a row, and its slope in log π_θ


def ratio_of(new, old):
    return np.exp(np.clip(new - old, -BOUND, BOUND))


def score_function(new, old, advantage):
    return -new * advantage, -advantage


def ratio(new, old, advantage):
    """L^CPI: TRPO arXiv:1502.05477, eq. 14; PPO arXiv:1707.06347, eq. 6."""
    rho = ratio_of(new, old)
    return -rho * advantage, np.where(np.abs(new - old) <= BOUND, -rho * advantage, 0.0)


def clipped_ratio(new, old, advantage, low, high, level, dual):
    """PPO arXiv:1707.06347 eq. 7; the row's geometric mean, arXiv:2507.18071 eq. 5–7; dual clip arXiv:1912.09729."""
    log_ratio = new - old if level == "token" else np.full(len(new), (new - old).mean())
    ratio = np.exp(np.clip(log_ratio, -BOUND, BOUND))
    gain = np.minimum(ratio * advantage, np.clip(ratio, 1 - low, 1 + high) * advantage)
    free = (gain == ratio * advantage) & (np.abs(log_ratio) <= BOUND)
    if dual is not None:
        floored = (advantage < 0) & (gain < dual * advantage)
        gain, free = np.where(floored, dual * advantage, gain), free & ~floored
    return -gain, np.where(free, -ratio * advantage, 0.0)


def clipped_weight(new, old, advantage, low, high):
    """CISPO, arXiv:2506.13585, eq. 4–5: the clipped ratio is a constant."""
    weight = ratio_of(new, old)
    weight = np.clip(weight, -np.inf if low is None else 1 - low, np.inf if high is None else 1 + high)
    return -weight * advantage * new, -weight * advantage


def truncated_importance(old, rollout, cap):
    """min(π_old/μ, C)."""
    return np.minimum(ratio_of(old, rollout), cap)


# ---- the critic


def value_loss(values, old, returns, clip, huber):
    """½(V − R)², or Huber's; the larger of it and of the clipped value's: arXiv:2005.12729, section 3."""

    def error(v):
        gap = np.abs(v - returns)
        return gap**2 / 2 if huber is None else np.where(gap <= huber, gap**2 / 2, huber * (gap - huber / 2))

    return error(values) if clip is None else np.maximum(error(values), error(np.clip(values, old - clip, old + clip)))


def explained_variance(values, returns):
    return 1 - (returns - values).var() / returns.var()


# ---- aggregation: a weight for each action of each row


def weights(lengths, how, constant=0):
    """1/Σ|o|, 1/(N|o_i|), 1/(N·L), rounded to float32 as the library keeps them; N rows with an action."""
    lengths = np.array(lengths)
    rows = max((lengths > 0).sum(), 1)
    whole = {"tokens": np.full(len(lengths), max(lengths.sum(), 1)), "sequences": rows * np.maximum(lengths, 1)}
    whole["constant"] = np.full(len(lengths), rows * constant)
    return (np.float32(1) / whole[how].astype(np.float32)).astype(np.float64)


# ---- rewards of whole rows, links, and what pairs lose


def overlong(total, length, longest, margin):
    """DAPO, arXiv:2503.14476, eq. 13."""
    if length <= longest - margin:
        return total
    return total - 1 if length > longest else total + (longest - margin - length) / margin


def implicit_reward(new, ref, beta, by_length):
    """DPO arXiv:2305.18290 eq. 5; without a reference and by length, SimPO arXiv:2405.14734 eq. 4."""
    total = new.sum() - (0 if ref is None else ref.sum())
    return beta * (total / max(len(new), 1) if by_length else total)


def log_odds(new):
    """ORPO, arXiv:2403.07691, eq. 3–4."""
    mean = min(new.mean() if len(new) else 0.0, -np.exp(-BOUND))
    return mean - np.log(-np.expm1(mean))


def log_sigmoid(x):
    return -np.log1p(np.exp(-np.abs(x))) + np.minimum(x, 0)


def smoothed(margin, smoothing, lead):
    """cDPO, with SimPO's γ."""
    return -(1 - smoothing) * log_sigmoid(margin - lead) - smoothing * log_sigmoid(lead - margin)


def squared(margin, beta):
    """IPO, arXiv:2310.12036, eq. 17."""
    return (margin / beta - 1 / (2 * beta)) ** 2


def hinge(margin):
    """SLiC, arXiv:2305.10425."""
    return np.maximum(0, 1 - margin)


def kto(reward, good, z, desirable, undesirable):
    """arXiv:2402.01306, eq. 8."""
    right = reward - z if good else z - reward
    return (desirable if good else undesirable) * (1 - 1 / (1 + np.exp(-right)))
