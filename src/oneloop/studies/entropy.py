"""Entropy over training, with and without clip-higher: does the policy stop to explore, and does it pay?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch

from oneloop.algorithms import GRPO, PolicyGradient
from oneloop.loop import train
from oneloop.objective.surrogate import ClippedRatio
from oneloop.studies.contexts import CONTEXTS, Draws, TablePolicy, optimum
from oneloop.studies.judge import above, below, every, inside, minus, said
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

EVEN, HIGHER, BONUS = "clip 0.2/0.2", "clip 0.2/0.28", "clip 0.2/0.2, entropy 0.01"
PLAIN = replace(GRPO, kl=None, epochs=4)
WAYS: dict[str, PolicyGradient] = {
    EVEN: PLAIN,
    HIGHER: replace(PLAIN, surrogate=ClippedRatio(0.2, 0.28)),
    BONUS: replace(PLAIN, entropy=0.01),
}
STEPS, QUICK_STEPS = 60, 4
LOOKS = 4
"""How often a run is looked at."""
GROUP, NOISE = 8, 0.3
RATE, QUICK_RATE = 0.05, 0.4


def run(seeds: Sequence[int], quick: bool) -> Table:
    steps, rate = (QUICK_STEPS, QUICK_RATE) if quick else (STEPS, RATE)
    entropy, regret, clip = [], [], []
    for name, algorithm in WAYS.items():
        courses, shares = zip(*(_course(algorithm, seed, steps, rate) for seed in seeds), strict=True)
        clip.append(Point(name, "share", shares))
        for place in range(0, steps + 1, steps // LOOKS):
            entropy.append(Point(name, place, tuple(course[place][0] for course in courses)))
            regret.append(Point(name, place, tuple(course[place][1] for course in courses)))
    return {
        "entropy": Panel("entropy of the policy, nats", "step", tuple(entropy)),
        "regret": Panel("best − expected reward", "step", tuple(regret)),
        "clip": Panel("tokens whose gradient the clip takes, mean over training", "", tuple(clip)),
    }


def _course(algorithm: PolicyGradient, seed: int, steps: int, rate: float) -> tuple[list[tuple[float, float]], float]:
    """Entropy and regret before the first step and after each; and how much the clip had to do."""
    models, recorder = TablePolicy(rate), Kept()
    draws = Draws(models, seed, group_size=GROUP, noise=NOISE)
    train(algorithm, draws, models, recorder, steps=steps, minibatch=CONTEXTS // 4, max_tokens=1 << 20, seed=seed)
    best, clipped = optimum(draws.rewards), fmean(row["clip/gradient_zero"] for row in recorder.rows)
    return [(_entropy(logits), best - draws.expected(logits)) for logits in draws.steps], clipped


def _entropy(logits: torch.Tensor) -> float:
    table = logits.log_softmax(-1)
    return float(-(table.exp() * table).sum(1).mean())


def _ends(table: Table, key: str) -> dict[str, Point]:
    return {name: table[key].of(name)[-1] for name in WAYS}


def _falls(table: Table) -> Judged:
    first, last = table["entropy"].of(EVEN)[0], table["entropy"].of(EVEN)[-1]
    verdict = below(minus(last, first).interval, -0.5 * first.mean)
    return Judged(verdict, f"entropy goes from {said(first)} to {said(last)} nats in {last.x:g} steps of four epochs")


def _keeps(table: Table) -> Judged:
    ends = _ends(table, "entropy")
    gained = minus(ends[HIGHER], ends[EVEN])
    return Judged(
        above(gained.interval, 0),
        f"at the end it is {said(ends[EVEN])} nats with 0.2/0.2 and {said(ends[HIGHER])} with 0.2/0.28; difference "
        f"{said(gained)}. The clip takes the gradient of {said(table['clip'].of(EVEN)[0])} of the tokens with 0.2/0.2 "
        f"and of {said(table['clip'].of(HIGHER)[0])} with 0.2/0.28",
    )


def _pays(table: Table) -> Judged:
    ends = _ends(table, "regret")
    change = minus(ends[HIGHER], ends[EVEN])
    return Judged(
        below(change.interval, 0),
        f"regret at the end: {said(ends[EVEN])} with 0.2/0.2, {said(ends[HIGHER])} with 0.2/0.28; difference "
        f"{said(change)}",
    )


def _bonus(table: Table) -> Judged:
    entropy, regret = _ends(table, "entropy"), _ends(table, "regret")
    gained = minus(entropy[BONUS], entropy[EVEN])
    verdict = every([above(gained.interval, 0), inside(minus(regret[BONUS], regret[EVEN]).interval, -1, 0.02)])
    return Judged(
        verdict,
        f"the bonus leaves {said(entropy[BONUS])} nats, {said(gained)} more, and a regret of {said(regret[BONUS])}",
    )


STUDY = Study(
    name="entropy",
    title="Entropy collapse, clip-higher and the entropy bonus",
    setting=(
        f"A contextual bandit of {CONTEXTS} contexts and 8 actions with noisy rewards, a softmax table, oneloop's own "
        f"loop and its GRPO: {STEPS} steps of four epochs of four minibatches, groups of {GROUP}, no KL, Adam with a "
        "learning rate of 0.05. Entropy and regret are exact."
    ),
    claims=(
        Claim(
            "Entropy collapses: it loses more than half in the course of training",
            "founding documents, on DAPO; arXiv:2503.14476, section 3.1",
            _falls,
        ),
        Claim(
            "Clip-higher keeps entropy up",
            "founding documents, DAPO's clip-higher; arXiv:2503.14476, section 3.1",
            _keeps,
        ),
        Claim("Clip-higher ends with a higher reward", "founding documents, as above", _pays),
        Claim(
            "An entropy bonus of 0.01 keeps entropy up and costs less than 0.02 of the reward's range",
            "founding documents, entropy bonus",
            _bonus,
        ),
    ),
    run=run,
)
