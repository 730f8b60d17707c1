"""Answers drawn from a policy of some updates ago: what they cost, and what corrects for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from oneloop.algorithms import GRPO, PolicyGradient
from oneloop.loop import train
from oneloop.objective.advantage import LeaveOneOut
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.surrogate import ScoreFunction
from oneloop.studies.contexts import CONTEXTS, Draws, TablePolicy, optimum, true_kl
from oneloop.studies.judge import above, below, every, inside, minus, said
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

AGES, QUICK_AGES = (0, 1, 2, 4, 6, 8), (0, 2, 8)
OLDEST = 8
STEPS, QUICK_STEPS = 60, 14
GROUP, NOISE, RATE = 8, 0.3, 0.3


PLAIN = replace(GRPO, kl=None, advantage=LeaveOneOut(), surrogate=ScoreFunction())
NONE, TRUNCATED, WHOLE = "no correction", "× min(π/μ, 2)", "× π/μ"
WAYS: dict[str, PolicyGradient] = {
    NONE: PLAIN,
    TRUNCATED: replace(PLAIN, correction=TruncatedImportance(2.0)),
    WHOLE: replace(PLAIN, correction=TruncatedImportance(1e9)),
}


def run(seeds: Sequence[int], quick: bool) -> Table:
    steps = QUICK_STEPS if quick else STEPS
    quantities = {
        "regret": "regret at the end: best − expected reward",
        "course": "regret, a mean over the run",
        "distance": "KL(μ ‖ π) between sampler and policy, nats, a mean over the run",
    }
    points: dict[str, list[Point]] = {key: [] for key in quantities}
    for name, algorithm in WAYS.items():
        for age in QUICK_AGES if quick else AGES:
            found = [_trained(algorithm, seed, age, steps) for seed in seeds]
            for key, values in zip(quantities, zip(*found, strict=True), strict=True):
                points[key].append(Point(name, age, values))
    axis = "staleness, updates"
    return {key: Panel(words, axis, tuple(points[key])) for key, words in quantities.items()}


def _trained(algorithm: PolicyGradient, seed: int, age: int, steps: int) -> tuple[float, float, float]:
    models = TablePolicy(RATE)
    draws = Draws(models, seed, group_size=GROUP, noise=NOISE, staleness=age)
    train(algorithm, draws, models, Kept(), steps=steps, minibatch=CONTEXTS, max_tokens=1 << 20, seed=seed)
    best = optimum(draws.rewards)
    regrets = [best - draws.expected(logits) for logits in draws.steps]
    apart = [true_kl(draws.steps[max(step - age, 0)], draws.steps[step]) for step in range(steps)]
    return regrets[-1], float(torch.tensor(regrets).mean()), sum(apart) / len(apart)


def _costs(table: Table) -> Judged:
    panel = table["course"]
    fresh, old = panel.at(NONE, 0), panel.at(NONE, OLDEST)
    verdict = above(minus(old, fresh).interval, 0)
    return Judged(
        verdict,
        f"mean regret over the run: {said(fresh)} with fresh answers, {said(old)} with answers {OLDEST} updates old",
    )


def _end(table: Table) -> Judged:
    panel = table["regret"]
    fresh, old = panel.at(NONE, 0), panel.at(NONE, OLDEST)
    verdict = above(minus(old, fresh).interval, 0.01)
    return Judged(
        verdict,
        f"regret at the end: {said(fresh)} fresh, {said(old)} at {OLDEST}, difference {said(minus(old, fresh))}",
    )


def _corrects(table: Table) -> Judged:
    panel = table["course"]
    none, truncated = panel.at(NONE, OLDEST), panel.at(TRUNCATED, OLDEST)
    verdict = below(minus(truncated, none).interval, 0)
    return Judged(
        verdict,
        f"at {OLDEST} updates the mean regret is {said(none)} without and {said(truncated)} with truncated importance "
        "weights, "
        f"{said(panel.at(WHOLE, OLDEST))} with whole ones",
    )


def _harmless(table: Table) -> Judged:
    panel = table["course"]
    young = 2
    verdict = every(inside(minus(panel.at(name, young), panel.at(name, 0)).interval, -0.02, 0.02) for name in WAYS)
    told = ", ".join(f"{said(minus(panel.at(name, young), panel.at(name, 0)))} ({name})" for name in WAYS)
    return Judged(verdict, f"mean regret at {young} updates less that of fresh answers: {told}")


STUDY = Study(
    name="staleness",
    title="Off-policy staleness, with and without correction",
    setting=(
        f"A contextual bandit of {CONTEXTS} contexts and 8 actions with noisy rewards, a softmax table, and oneloop's "
        "own loop: "
        f"{STEPS} steps of one update each, groups of {GROUP}, leave-one-out advantages, Adam with a learning rate of "
        "0.3. "
        "Answers come from the policy of 0 to 8 updates ago. The regret is exact."
    ),
    claims=(
        Claim(
            "Answers of an older policy slow learning down where nothing corrects for them",
            "founding documents, on-policy methods need fresh samples",
            _costs,
        ),
        Claim("They also leave the policy worse in the end, by more than 0.01", "founding documents, as above", _end),
        Claim(
            "Truncated importance weights win a part of it back",
            "Yao et al. 2025; founding documents, on importance sampling",
            _corrects,
        ),
        Claim("Two updates of staleness cost less than 0.02 of the reward's range", "asked beside it", _harmless),
    ),
    run=run,
    seeds=tuple(range(20)),
)
