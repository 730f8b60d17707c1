"""A learned critic against group baselines where the reward comes at the end: whose advantages are truer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import acos, degrees
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from oneloop.algorithms import PPO, Critic, PolicyGradient
from oneloop.batch import Batch, PolicyOutput
from oneloop.loop import train
from oneloop.objective.advantage import GAE, AdvantageEstimator, GroupRelative, LeaveOneOut
from oneloop.studies.judge import above, below, every, minus, said
from oneloop.studies.line import GOAL, LONGEST, STARTS, Walker, Walks, advantages, sparse, success, walk_of
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

LEARNED, WHOLE, EXACT = "critic, λ 0.95", "critic, λ 1", "exact values, λ 0.95"
GRPO, RLOO = "GRPO (group mean, std)", "RLOO (others' mean)"
GROUPS = (GRPO, RLOO)
ESTIMATORS: dict[str, AdvantageEstimator] = {
    LEARNED: GAE(),
    WHOLE: GAE(lam=1.0),
    GRPO: GroupRelative(),
    RLOO: LeaveOneOut(),
    EXACT: GAE(),
}
STEPS, QUICK_STEPS = 30, 10
WINDOW = 5
"""Steps whose mean is one point: a single batch scatters."""
GROUP, COUNT, RATE, CRITIC_RATE = 8, 2, 0.02, 0.05
BEGIN = 0.6
"""Logit of going on: at first one walk in six arrives."""


class Looks:
    """Implements `oneloop.ports.Trace`: of each step's advantages, how near they are to the exact ones."""

    def __init__(self, walks: Walks) -> None:
        self._walks = walks
        self.found: list[tuple[float, float]] = []
        """Correlation over the batch's tokens; degrees between the batch's gradient and the true one."""

    def saw(self, update: int, micro: Batch, out: PolicyOutput) -> None:
        """Every step is looked at as a whole."""

    def close(self, step: int, batch: Batch, trajectories: Any) -> None:
        assert batch.advantages is not None
        logits, walk = self._walks.steps[step], walk_of(batch)
        guess, true = batch.advantages[:, 1:][walk.live], advantages(logits.softmax(-1), walk)[walk.live]
        self.found.append((correlation(guess, true), angle(_gradient(logits, batch, guess), true_gradient(logits))))


def correlation(one: Tensor, other: Tensor) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size else 0.0


def angle(one: Tensor, other: Tensor) -> float:
    """Degrees; 90 where one of them is 0, and says nothing."""
    size = float(one.norm() * other.norm())
    return degrees(acos(max(-1.0, min(1.0, float((one * other).sum()) / size)))) if size else 90.0


def true_gradient(logits: Tensor) -> Tensor:
    """∂J/∂logits of the chance to arrive."""
    moving = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(success(moving), moving)
    return found


def _gradient(logits: Tensor, batch: Batch, guess: Tensor) -> Tensor:
    """Σ Â ∇log π over the tokens of a batch."""
    walk, moving = walk_of(batch), logits.clone().requires_grad_()
    before = walk.places[:, :-1].clamp(max=GOAL - 1)
    logprobs = moving.log_softmax(-1)[before, walk.actions][walk.live]
    (found,) = torch.autograd.grad((logprobs * guess).sum(), moving)
    return found


def run(seeds: Sequence[int], quick: bool) -> Table:
    steps = QUICK_STEPS if quick else STEPS
    near, aside, arrived = [], [], []
    for name in ESTIMATORS:
        courses = [_course(name, seed, steps) for seed in seeds]
        for first in range(0, steps, WINDOW):
            found = [looks[first : first + WINDOW] for looks, _ in courses]
            near.append(Point(name, first + WINDOW, tuple(fmean(look[0] for look in one) for one in found)))
            aside.append(Point(name, first + WINDOW, tuple(fmean(look[1] for look in one) for one in found)))
        for step in range(0, steps + 1, WINDOW):
            arrived.append(Point(name, step, tuple(course[step] for _, course in courses)))
    axis = f"step, the last of {WINDOW}"
    return {
        "near": Panel("correlation of Â with the exact advantage, over tokens", axis, tuple(near)),
        "aside": Panel("angle of a batch's gradient to the true one, degrees", axis, tuple(aside)),
        "arrived": Panel("expected reward", "step", tuple(arrived)),
    }


def _course(name: str, seed: int, steps: int) -> tuple[list[tuple[float, float]], list[float]]:
    """What each step's advantages were worth; and the expected reward before the first step and after each."""
    models = Walker(RATE, CRITIC_RATE, begin=BEGIN, exact=name == EXACT)
    walks = Walks(models, seed, sparse, groups=COUNT, group_size=GROUP)
    looks, groups = Looks(walks), COUNT * len(STARTS)
    train(
        _algorithm(name), walks, models, Kept(), steps=steps, minibatch=groups // 2, max_tokens=1 << 20, seed=seed,
        trace=looks,
    )  # fmt: skip
    return looks.found, [float(success(logits)) for logits in walks.steps]


def _algorithm(name: str) -> PolicyGradient:
    """PPO but for the advantage."""
    advantage = ESTIMATORS[name]
    critic = Critic(coef=0.0 if name == EXACT else 0.5, clip=None) if advantage.uses_values else None
    return replace(PPO, advantage=advantage, kl=None, critic=critic, epochs=2, target_kl=None, name="studied")


def _first(table: Table, key: str, name: str) -> Point:
    return table[key].of(name)[0]


def _last(table: Table, key: str, name: str) -> Point:
    return table[key].of(name)[-1]


def _noise(table: Table) -> Judged:
    critics = [_first(table, "near", name) for name in (LEARNED, WHOLE)]
    groups = [_first(table, "near", name) for name in GROUPS]
    verdict = every(below(minus(critic, group).interval, 0) for critic in critics for group in groups)
    told = ", ".join(f"{said(point)} ({point.series})" for point in (*critics, *groups))
    return Judged(verdict, f"correlation with the exact advantages in the first {WINDOW} steps: {told}")


def _later(table: Table) -> Judged:
    critic, groups = _last(table, "near", LEARNED), [_last(table, "near", name) for name in GROUPS]
    verdict = every(above(minus(critic, group).interval, 0) for group in groups)
    told = ", ".join(f"{said(point)} ({point.series})" for point in (critic, *groups))
    return Judged(verdict, f"in the last {WINDOW} steps: {told}")


def _gradients(table: Table) -> Judged:
    verdicts, told = [], []
    for when, at in (("first", _first), ("last", _last)):
        critic, groups = at(table, "aside", LEARNED), [at(table, "aside", name) for name in GROUPS]
        verdicts += [above(minus(critic, group).interval, 0) for group in groups]
        told.append(f"{', '.join(f'{said(p)}° ({p.series})' for p in (critic, *groups))} in the {when} {WINDOW}")
    return Judged(every(verdicts), f"angle of a batch's gradient to the true one: {'; '.join(told)} steps")


def _reached(table: Table) -> Judged:
    critic, groups = _last(table, "arrived", LEARNED), [_last(table, "arrived", name) for name in GROUPS]
    verdict = every(above(minus(group, critic).interval, -0.01) for group in groups)
    told = ", ".join(f"{said(point)} ({point.series})" for point in (critic, *groups))
    return Judged(verdict, f"expected reward after {critic.x:g} steps of the same number of answers: {told}")


def _bound(table: Table) -> Judged:
    exact, learned = _last(table, "near", EXACT), _last(table, "near", LEARNED)
    verdict = above(minus(exact, learned).interval, 0)
    first = _first(table, "near", EXACT)
    return Judged(
        verdict,
        f"correlation with exact values and the same λ: {said(first)} in the first {WINDOW} steps and {said(exact)} "
        f"in the last, where the learned critic has {said(learned)}",
    )


def _small(table: Table) -> str:
    ends = ", ".join(f"{said(_last(table, 'arrived', name))} ({name})" for name in ESTIMATORS)
    return (
        f"Expected reward at the end: {ends}. What speaks against the documents here has a limit: this critic is a "
        f"table of {(LONGEST + 1) * (GOAL + 1)} numbers that sees the whole state, and its walks are short. A critic "
        "of a language model has to find the state in thousands of tokens first. What one costs in memory, "
        "`oneloop study memory` measures."
    )


STUDY = Study(
    name="critic",
    title="A learned critic against group baselines, with the reward at the end",
    setting=(
        f"A walk of at most {LONGEST} tokens (back, stay, on) from one of {len(STARTS)} prompts to a goal; arriving is "
        f"worth 1, at the last token. The policy has logits by place, the critic a value for each place and time. "
        f"{STEPS} steps of oneloop's PPO, of which only the advantage is changed: {COUNT * len(STARTS)} groups of "
        f"{GROUP} answers a step for each of them, two epochs of two minibatches, no KL. Exact values, advantages and "
        "gradients come from the walk's own equations. A seed is a run."
    ),
    claims=(
        Claim(
            "With the reward at the end a critic is noise at first: its advantages are farther from the truth than "
            "those of a group",
            "founding documents, on why GRPO leaves out the critic; arXiv:2402.03300, section 4.1.1",
            _noise,
        ),
        Claim(
            "Once it has learned, a critic's advantages are nearer to the truth than a group's, which are the same for "
            "every token",
            "asked beside it; arXiv:1506.02438",
            _later,
        ),
        Claim(
            "A batch's gradient is nearer to the true one with a group baseline than with a critic, from first to last",
            "founding documents, on leaving out the critic",
            _gradients,
        ),
        Claim(
            "At equal samples group baselines reach the expected reward that a critic reaches (within 0.01)",
            "founding documents, on GRPO and RLOO",
            _reached,
        ),
        Claim(
            "Part of a critic's distance to the truth is its own: exact values with the same λ come nearer",
            "asked beside it",
            _bound,
        ),
    ),
    run=run,
    told=_small,
)
