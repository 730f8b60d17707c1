"""What dividing by the group's std weighs: prompts by how often they are answered right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from oneloop.objective.advantage import GroupRelative, LeaveOneOut
from oneloop.seeds import named_seed
from oneloop.studies.bandit import Bandit, estimate, group_gradients, groups_of
from oneloop.studies.judge import above, below, every, inside, over, said, short
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

CHANCES = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)
EASY, MIDDLE, HARD = 0.95, 0.5, 0.05
WITH, WITHOUT, OTHERS = "GRPO (÷ std)", "Dr. GRPO (no std)", "RLOO"
ESTIMATORS = {WITH: GroupRelative(scale="std"), WITHOUT: GroupRelative(scale="none"), OTHERS: LeaveOneOut()}
SIZE = 8


def problem(seed: int, chance: float) -> Bandit:
    """One right answer of that probability, reward 1; three wrong ones, reward 0, share the rest at random."""
    rng = torch.Generator().manual_seed(named_seed("spread", seed))
    wrong = torch.rand(3, generator=rng, dtype=torch.float64) + 0.1
    policy = torch.cat([torch.tensor([chance], dtype=torch.float64), (1 - chance) * wrong / wrong.sum()])
    return Bandit(policy.log(), torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))


def run(seeds: Sequence[int], quick: bool) -> Table:
    chances = (HARD, 0.25, MIDDLE, 0.75, EASY) if quick else CHANCES
    weight, length, dead = [], [], []
    for name, advantage in ESTIMATORS.items():
        for chance in chances:
            found = [_found(problem(seed, chance), advantage) for seed in seeds]
            weight.append(Point(name, chance, tuple(f.weight for f in found)))
            length.append(Point(name, chance, tuple(f.length for f in found)))
            dead.append(Point(name, chance, tuple(f.dead for f in found)))
    axis = f"chance of a right answer (groups of {SIZE})"
    return {
        "weight": Panel("weight of the prompt: mean gradient ÷ true gradient", axis, tuple(weight)),
        "length": Panel("length of the mean gradient, share of the longest", axis, _scaled(length)),
        "dead": Panel("groups without any gradient, share", axis, tuple(dead)),
    }


@dataclass(frozen=True)
class _Found:
    weight: float
    length: float
    dead: float


def _found(bandit: Bandit, advantage: GroupRelative | LeaveOneOut) -> _Found:
    truth, mean = bandit.gradient, estimate(bandit, advantage, SIZE).mean
    groups = groups_of(len(bandit.logits), SIZE)
    still = ~group_gradients(bandit, advantage, groups.arms).any(1)
    dead = groups.chance(bandit.policy)[still].sum()
    return _Found(float(mean @ truth / truth.square().sum()), float(mean.norm()), float(dead))


def _scaled(points: list[Point]) -> tuple[Point, ...]:
    """Each series and seed relative to its longest."""
    names = {point.series for point in points}
    most = {
        name: [max(vs) for vs in zip(*(p.values for p in points if p.series == name), strict=True)] for name in names
    }
    return tuple(
        Point(p.series, p.x, tuple(value / top for value, top in zip(p.values, most[p.series], strict=True)))
        for p in points
    )


def _extremes(table: Table) -> Judged:
    panel = table["weight"]
    ratios = [over(panel.at(WITH, chance), panel.at(WITH, MIDDLE)) for chance in (HARD, EASY)]
    verdict = every(above(ratio.interval, 1) for ratio in ratios)
    return Judged(
        verdict,
        f"a prompt answered right 5 % of the time weighs {said(ratios[0])} times one answered right half of the time, "
        f"one at 95 % {said(ratios[1])} times",
    )


def _even(table: Table) -> Judged:
    panel = table["weight"]
    ratios = [over(point, panel.at(name, MIDDLE)) for name in (WITHOUT, OTHERS) for point in panel.of(name)]
    verdict = every(inside(ratio.interval, 1 - 1e-6, 1 + 1e-6) for ratio in ratios)
    largest = max(abs(ratio.mean - 1) for ratio in ratios)
    return Judged(verdict, f"without the std the weights of all prompts differ by {short(largest)} at most")


def _rule(table: Table) -> Judged:
    panel = table["length"]
    ends = [panel.at(WITH, chance) for chance in (HARD, EASY)]
    verdict = every(below(end.interval, 0.9) for end in ends)
    return Judged(
        verdict,
        f"the mean gradient of a prompt at 5 % is {said(ends[0])} of the longest, at 95 % {said(ends[1])}; without the "
        f"std {said(panel.at(WITHOUT, HARD))} and {said(panel.at(WITHOUT, EASY))}",
    )


STUDY = Study(
    name="spread",
    title="Dividing by the group's std: which prompts it weighs",
    setting=(
        "One prompt with a right answer (reward 1) of a given chance and three wrong ones (reward 0), groups of "
        f"{SIZE}. "
        "Expectations over all groups are sums, exact; a seed shares the wrong answers' chance out anew, which turns "
        "out "
        "to change nothing. The weight of a prompt is what its mean gradient has of its true one."
    ),
    claims=(
        Claim(
            "Dividing by the std gives more weight to prompts that are too easy or too hard",
            "founding documents, on Dr. GRPO; arXiv:2503.20783, section 3.1",
            _extremes,
        ),
        Claim("Without the std every prompt has the same weight", "founding documents, on Dr. GRPO and RLOO", _even),
        Claim(
            "Even so, prompts in the middle move the policy most: what the std gives to the extremes does not make "
            "up for how seldom their answers differ",
            "asked beside it",
            _rule,
        ),
    ),
    run=run,
)
