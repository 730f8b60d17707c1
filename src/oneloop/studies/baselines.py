"""What a baseline from the group itself does to the gradient: its length, its direction, its scatter, by K."""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, degrees

import torch

from oneloop.objective.advantage import AdvantageEstimator, GroupRelative, LeaveOneOut
from oneloop.seeds import named_seed
from oneloop.studies.bandit import EXACT, Bandit, estimate
from oneloop.studies.judge import above, below, every, inside, minus, over, said, short
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

SIZES, QUICK_SIZES = (2, 3, 4, 8, 16, 32), (2, 4, 8, 16)
GRPO, DR_GRPO, RLOO, EXACTLY = "GRPO (mean and std)", "Dr. GRPO (mean)", "RLOO (others' mean)", "exact value"
ESTIMATORS: dict[str, AdvantageEstimator] = {
    GRPO: GroupRelative(scale="std"),
    DR_GRPO: GroupRelative(scale="none"),
    RLOO: LeaveOneOut(),
    EXACTLY: EXACT,
}
ARMS = 4


def problem(seed: int) -> Bandit:
    """Random logits and rewards of four answers."""
    rng = torch.Generator().manual_seed(named_seed("baselines", seed))
    return Bandit(
        torch.randn(ARMS, generator=rng, dtype=torch.float64), torch.rand(ARMS, generator=rng, dtype=torch.float64)
    )


def run(seeds: Sequence[int], quick: bool) -> Table:
    sizes = QUICK_SIZES if quick else SIZES
    panels: dict[str, list[Point]] = {"length": [], "angle": [], "variance": []}
    for name, advantage in ESTIMATORS.items():
        for size in sizes:
            measured = [_measured(problem(seed), advantage, size) for seed in seeds]
            for key, values in zip(panels, zip(*measured, strict=True), strict=True):
                panels[key].append(Point(name, size, tuple(values)))
    axis = "K, answers of a group"
    return {
        "length": Panel("mean gradient along the true one, share of its length", axis, tuple(panels["length"]), "log"),
        "angle": Panel("angle to the true gradient, degrees", axis, tuple(panels["angle"]), "log"),
        "variance": Panel(
            "variance at the true length, relative to the exact value's", axis, tuple(panels["variance"]), "log"
        ),
    }


def _measured(bandit: Bandit, advantage: AdvantageEstimator, size: int) -> tuple[float, float, float]:
    """Length, angle, and the variance of an estimator that is scaled to the true length, beside the exact value's."""
    truth, found, best = bandit.gradient, estimate(bandit, advantage, size), estimate(bandit, EXACT, size)
    along = float(found.mean @ truth / truth.square().sum())
    aside = float((found.mean - along * truth).norm() / truth.norm())
    return along, degrees(atan2(aside, along)), float(found.variance / along**2 / best.variance)


def _leave_one_out(table: Table) -> Judged:
    points, angles = table["length"].of(RLOO), table["angle"].of(RLOO)
    lengths = (inside(point.interval, 1 - 1e-6, 1 + 1e-6) for point in points)
    verdict = every([*lengths, *(inside(angle.interval, -1e-5, 1e-5) for angle in angles)])
    return Judged(verdict, f"its mean has {said(points[0])} times the true length at K = {points[0].x:g}")


def _own_reward(table: Table) -> Judged:
    points = table["length"].of(DR_GRPO)
    right = (inside(p.interval, 1 - 1 / float(p.x) - 1e-6, 1 - 1 / float(p.x) + 1e-6) for p in points)
    verdict = every([*right, *(inside(angle.interval, -1e-5, 1e-5) for angle in table["angle"].of(DR_GRPO))])
    angles = [angle.mean for angle in table["angle"].of(DR_GRPO)]
    lengths = ", ".join(f"{short(point.mean)} at K = {point.x:g}" for point in points)
    told = f"(K − 1)/K of the true length: {lengths}; its direction is the true one ({short(max(angles))}° aside)"
    return Judged(verdict, told)


def _turned(table: Table) -> Judged:
    angle, length = table["angle"].of(GRPO), table["length"].of(GRPO)
    verdict = every([*(above(one.interval, 0) for one in angle), below(minus(angle[-1], angle[0]).interval, 0)])
    return Judged(
        verdict,
        f"with the std the angle is {said(angle[0])}° at K = {angle[0].x:g} and {said(angle[-1])}° at K = "
        f"{angle[-1].x:g}. The length stays another one, {said(length[-1])}: 1/std, and each prompt has its own",
    )


def _variance(table: Table) -> Judged:
    points = table["variance"].of(RLOO)
    verdict = every([above(points[0].interval, 1), below(minus(points[-1], points[0]).interval, 0)])
    first, last = (f"{said(point)} at K = {point.x:g}" for point in (points[0], points[-1]))
    return Judged(verdict, f"times the variance with the exact value: {first}, {last}")


def _same(table: Table) -> str:
    one, other = table["variance"].of(RLOO), table["variance"].of(DR_GRPO)
    apart = max(abs(over(a, b).mean - 1) for a, b in zip(one, other, strict=True))
    return (
        "Scaled to the true length, RLOO and the plain group mean are the same estimator: their variances differ by "
        f"{apart:.0e} of themselves. A learning rate K/(K − 1) times as large turns one into the other."
    )


STUDY = Study(
    name="baselines",
    title="The group as its own baseline: bias and variance by K",
    setting=(
        "A softmax policy over four answers with random logits and rewards (one problem a seed). Its true gradient is "
        "known, and the expectation over every group of K answers is a finite sum, so that bias and variance are "
        "exact: "
        "the spread is that between problems. The gradients are the first update's, by oneloop's own PPO objective "
        "with "
        "the advantage of each method."
    ),
    claims=(
        Claim(
            "RLOO's leave-one-out baseline is unbiased",
            "founding documents; arXiv:2402.14740, section 3",
            _leave_one_out,
        ),
        Claim(
            "A group mean that contains the answer itself is a biased baseline: the gradient is (K − 1)/K of the true "
            "one",
            "founding documents, on GRPO's finite-K bias; arXiv:2503.20783, appendix A",
            _own_reward,
        ),
        Claim(
            "Dividing by the std turns the gradient aside, and less so the larger the group",
            "founding documents, on GRPO's finite-K bias",
            _turned,
        ),
        Claim(
            "What a group baseline costs beside an exact value is variance, and less of it the larger K is",
            "founding documents, on leaving out the critic",
            _variance,
        ),
    ),
    run=run,
    seeds=tuple(range(20)),
    told=_same,
)
