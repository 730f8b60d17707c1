"""Reward over-optimisation: what happens to the true reward while a flawed one is maximised, by KL and by anchor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.algorithms import RLOO, PolicyGradient
from oneloop.loop import train
from oneloop.objective.divergence import KL
from oneloop.seeds import named_seed
from oneloop.studies.contexts import CONTEXTS, Draws, Kept, TablePolicy, true_kl
from oneloop.studies.judge import above, below, every, inside, minus, said
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

ANSWERS = 64
"""Of each prompt: an optimiser has to have something to find."""
NORMAL, HEAVY = "normal error", "heavy-tailed error"
TAIL = 2
"""Degrees of freedom of the heavy-tailed error (Student's t): a few answers are overrated by much."""
BETAS = (0.0, 0.3, 1.0, 3.0)
ANCHOR = 1.0
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEPS, QUICK_STEPS = 150, 40
GROUP, RATE = 16, 0.15
GOLD, PROXY = "gold", "proxy"


def rewards_of(seed: int, error: str) -> tuple[Float[Tensor, "C A"], Float[Tensor, "C A"]]:
    """Gold: standard normal. Proxy: gold and an error of scale 1."""
    rng = np.random.default_rng(named_seed("proxy", seed))
    gold = rng.standard_normal((CONTEXTS, ANSWERS))
    shape = (CONTEXTS, ANSWERS)
    flaw = rng.standard_normal(shape) if error == NORMAL else rng.standard_t(TAIL, shape)
    return torch.tensor(gold), torch.tensor(gold + flaw)


def run(seeds: Sequence[int], quick: bool) -> Table:
    steps = QUICK_STEPS if quick else STEPS
    course, best, anchor = [], [], []
    for error in (NORMAL, HEAVY):
        free = [_trained(seed, error, 0.0, steps) for seed in seeds]
        looks = [best_of(seed, error) for seed in seeds]
        for kind, name in enumerate((GOLD, PROXY)):
            label = f"{name}, {error}"
            for place in range(0, steps + 1, steps // 10):
                course.append(Point(label, place, tuple(one[place][kind] for one in free)))
            for place, count in enumerate(BEST_OF):
                best.append(Point(label, count, tuple(look[place][kind] for look in looks)))
    for beta in BETAS:
        ends = [_trained(seed, HEAVY, beta, steps)[-1] for seed in seeds]
        anchor.append(Point(f"{GOLD}, {HEAVY}", beta, tuple(end[0] for end in ends)))
        anchor.append(Point("√KL, √nats", beta, tuple(sqrt(end[2]) for end in ends)))
    return {
        "course": Panel(
            "reward without an anchor, standard deviations of gold", "step", tuple(course), "linear", "symlog"
        ),
        "anchor": Panel("gold reward, and √KL, at the end", "β", tuple(anchor)),
        "best": Panel("reward of best of n by the proxy", "n", tuple(best), "log", "symlog"),
    }


def best_of(seed: int, error: str) -> list[tuple[float, float]]:
    """Exactly: of n uniform answers the k-th by the proxy is taken with chance (k/A)ⁿ − ((k−1)/A)ⁿ."""
    gold, proxy = rewards_of(seed, error)
    order = proxy.argsort(1)
    rank = torch.arange(1, ANSWERS + 1, dtype=torch.float64) / ANSWERS
    found = []
    for count in BEST_OF:
        chance = rank**count - (rank - 1 / ANSWERS) ** count
        found.append(tuple(float((chance * reward.gather(1, order)).sum(1).mean()) for reward in (gold, proxy)))
    return found


def _trained(seed: int, error: str, beta: float, steps: int) -> list[tuple[float, float, float]]:
    """Gold, proxy and KL to the start, before the first step and after each. Trained on the proxy alone."""
    gold, proxy = rewards_of(seed, error)
    models = TablePolicy(RATE, actions=ANSWERS)
    draws = Draws(models, seed, group_size=GROUP, noise=0.0, rewards=proxy)
    train(_algorithm(beta), draws, models, Kept(), steps=steps, minibatch=CONTEXTS, max_tokens=1 << 20, seed=seed)
    start = draws.steps[0]

    def mean(logits: Float[Tensor, "C A"], reward: Float[Tensor, "C A"]) -> float:
        return float((logits.softmax(-1) * reward).sum(1).mean())

    return [(mean(logits, gold), mean(logits, proxy), true_kl(logits, start)) for logits in draws.steps]


def _algorithm(beta: float) -> PolicyGradient:
    return replace(RLOO, kl=KL(beta, at="reward", estimator="k1") if beta else None)


def _lost(points: Sequence[Point]) -> tuple[Point, Point]:
    """The best of them, and what of it is gone at the end.

    Half of the seeds say which is best, and the others how good it is: of many points that are alike, the one that
    looks best in some numbers looks too good in the same.
    """
    best = max(points, key=lambda point: fmean(point.values[::2]))
    top, end = (replace(point, values=point.values[1::2]) for point in (best, points[-1]))
    return best, minus(top, end)


def _told(points: Sequence[Point], axis: str) -> str:
    top, lost = _lost(points)
    end = points[-1]
    return f"gold is most at {axis} {top.x:g}, {said(top)}, and {said(end)} at {end.x:g}: {said(lost)} is lost"


def _overoptimised(table: Table) -> Judged:
    panel = table["course"]
    gold, proxy = panel.of(f"{GOLD}, {HEAVY}"), panel.of(f"{PROXY}, {HEAVY}")
    top, lost = _lost(gold)
    then = next(point for point in proxy if point.x == top.x)
    verdict = every([above(lost.interval, 0), above(minus(proxy[-1], then).interval, 0)])
    return Judged(verdict, f"with a heavy-tailed error the proxy goes to {said(proxy[-1])}, and {_told(gold, 'step')}")


def _light(table: Table) -> Judged:
    gold = table["course"].of(f"{GOLD}, {NORMAL}")
    verdict = inside(minus(gold[-1], gold[0]).interval, 0.5, 10)
    return Judged(verdict, f"with a normal error of the same scale {_told(gold, 'step')}")


def _anchor(table: Table) -> Judged:
    points = table["anchor"].of(f"{GOLD}, {HEAVY}")
    held = next(point for point in points if point.x == ANCHOR)
    verdict = above(minus(held, points[0]).interval, 0)
    told = ", ".join(f"{said(point)} with β = {point.x:g}" for point in points)
    return Judged(verdict, f"gold at the end, heavy-tailed error: {told}")


def _less(table: Table) -> Judged:
    points = table["anchor"].of("√KL, √nats")
    verdict = every(below(minus(b, a).interval, 0) for a, b in pairwise(points))
    return Judged(verdict, "√KL at the end: " + ", ".join(f"{said(p)} with β = {p.x:g}" for p in points))


def _many(table: Table) -> Judged:
    gold = table["best"].of(f"{GOLD}, {HEAVY}")
    return Judged(above(_lost(gold)[1].interval, 0), f"with a heavy-tailed error {_told(gold, 'n =')}")


STUDY = Study(
    name="proxy",
    title="Reward over-optimisation, and what the KL anchor does about it",
    setting=(
        f"{CONTEXTS} prompts with {ANSWERS} answers each. Gold rewards are standard normal; the proxy is gold plus an "
        f"error, normal or heavy-tailed (Student's t with {TAIL} degrees of freedom). RLOO through oneloop's own loop "
        f"maximises the proxy for {STEPS} steps, with β·KL to the start in the reward. Best of n takes the answer that "
        "the proxy likes best, exactly. Gold is never shown to any of them."
    ),
    claims=(
        Claim(
            "Reward over-optimisation: the proxy rises on while the true reward falls again",
            "founding documents, on reward hacking; arXiv:2210.10760",
            _overoptimised,
        ),
        Claim(
            "It takes an error with heavy tails: a normal one still leaves a policy that is better by half a deviation "
            "than it was",
            "arXiv:2407.14503",
            _light,
        ),
        Claim(
            f"The KL anchor (β = {ANCHOR:g}) leaves a better true reward than none",
            "founding documents, PPO with the KL anchor",
            _anchor,
        ),
        Claim("A larger β keeps the policy nearer to where it began", "founding documents, the KL anchor", _less),
        Claim("Best of n is over-optimised, too, at a large n", "arXiv:2210.10760, section 3.1", _many),
    ),
    run=run,
)
