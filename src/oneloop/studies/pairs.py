"""β in DPO on four answers whose true quality is known: the gap, the KL, and where the likelihood goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oneloop.algorithms import DPO
from oneloop.batch import Batch, PolicyOutput
from oneloop.objective.divergence import exact_kl
from oneloop.objective.preference import ImplicitReward
from oneloop.seeds import named_seed
from oneloop.studies.judge import above, below, every, inside, minus, over, said
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

QUALITY = torch.tensor([0.0, 1.0, 2.0, 2.8], dtype=torch.float64)
"""True reward of each answer; the reference is uniform."""
WORST, BEST = 0, 3
GAP = 2.8
DUELS = torch.combinations(torch.arange(4), 2)
BETAS = (0.1, 0.5, 1.0, 2.0)
SMALL, LARGE = 0.1, 2.0
DRAWN, NEVER = "labels drawn (Bradley–Terry)", "labels that never disagree"
EQUAL = "labels that never disagree, one learning rate"
PAIRS, QUICK_PAIRS = 3000, 600
STEPS, QUICK_STEPS = 150, 40
STEP = 4.0
"""Learning rate over β²: every β then moves the implicit reward at the same pace. With one rate for all, it is that."""


class Table4:
    """Implements `oneloop.ports.Models`: a softmax over four answers, beside a uniform reference."""

    def __init__(self) -> None:
        self.logits = torch.zeros(len(QUALITY), dtype=torch.float64, requires_grad=True)

    def policy(self, batch: Batch) -> PolicyOutput:
        return PolicyOutput(torch.log_softmax(self.logits, -1)[batch.tokens])

    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        return torch.full(batch.tokens.shape, -log(len(QUALITY)), dtype=torch.float64)

    def step(self) -> dict[str, float]:
        raise NotImplementedError("plain gradient descent, below")


def preferences(seed: int, count: int, drawn: bool) -> Batch:
    """`count` pairs of answers, the first row of each the one that was preferred."""
    rng = torch.Generator().manual_seed(named_seed("pairs", seed))
    pair = DUELS[torch.randint(len(DUELS), (count,), generator=rng)]
    chance = torch.sigmoid(QUALITY[pair[:, 1]] - QUALITY[pair[:, 0]])
    better = torch.rand(count, generator=rng, dtype=torch.float64) < chance if drawn else torch.ones(count).bool()
    ordered = torch.where(better[:, None], pair.flip(1), pair)
    return as_batch(ordered)


def as_batch(ordered: Int[Tensor, "P 2"]) -> Batch:
    """Repeated pairs are kept as they are: each counts."""
    count = len(ordered)
    labels = torch.tensor([[1.0], [0.0]], dtype=torch.float64).repeat(count, 1)
    return Batch(
        tokens=ordered.reshape(-1, 1),
        mask=torch.ones(2 * count, 1, dtype=torch.bool),
        group=torch.arange(count).repeat_interleave(2),
        rewards=labels,
        truncated=torch.zeros(2 * count, dtype=torch.bool),
    )


@dataclass(frozen=True)
class Found:
    gap: float
    """r(best) − r(worst), implicit reward."""
    later: float
    """The gap's growth over the last half of the training."""
    kl: float
    """KL(π_θ ‖ π_ref), nats."""
    log_odds: float
    """log π(best)/π(worst), nats."""
    chosen: float
    """Mean log-prob of the preferred answers, change from the reference, nats."""


def trained(seed: int, beta: float, labels: str, count: int, steps: int) -> Found:
    """Gradient descent on oneloop's DPO loss over all pairs at once."""
    algorithm = replace(DPO, reward=ImplicitReward(beta=beta))
    models = Table4()
    batch = algorithm.prepare(preferences(seed, count, labels == DRAWN), models)
    size, rate, gaps = batch.size, STEP if labels == EQUAL else STEP / beta**2, []
    for _ in range(steps):
        loss = algorithm.loss(models.policy(batch), batch, size)
        (slope,) = torch.autograd.grad(loss.value, models.logits)
        with torch.no_grad():
            models.logits -= rate * slope
        gaps.append(float(beta * (models.logits[BEST] - models.logits[WORST]).detach()))
    logits = models.logits.detach()
    chosen = torch.log_softmax(logits, -1)[batch.tokens[::2, 0]].mean() + log(len(QUALITY))
    return Found(
        gap=gaps[-1],
        later=gaps[-1] - gaps[len(gaps) // 2],
        kl=float(exact_kl(logits, torch.zeros_like(logits))),
        log_odds=gaps[-1] / beta,
        chosen=float(chosen),
    )


def run(seeds: Sequence[int], quick: bool) -> Table:
    count, steps = (QUICK_PAIRS, QUICK_STEPS) if quick else (PAIRS, STEPS)
    quantities = {
        "gap": "gap of implicit reward, best − worst answer",
        "later": "growth of that gap in the last half of the training",
        "kl": "KL(π ‖ π_ref), nats",
        "log_odds": "log π(best)/π(worst), nats",
        "chosen": "log π of preferred answers, change, nats",
    }
    points: dict[str, list[Point]] = {key: [] for key in quantities}
    for name in (DRAWN, NEVER, EQUAL):
        for beta in BETAS:
            found = [trained(seed, beta, name, count, steps) for seed in seeds]
            for key in quantities:
                points[key].append(Point(name, beta, tuple(getattr(one, key) for one in found)))
    return {
        key: Panel(words, "β", tuple(points[key]), "log", "log" if key == "log_odds" else "linear")
        for key, words in quantities.items()
    }


def _gap(table: Table) -> Judged:
    panel = table["gap"]
    small, large = panel.at(DRAWN, SMALL), panel.at(DRAWN, LARGE)
    verdict = above(over(small, large).interval, 1.1)
    return Judged(
        verdict,
        f"with drawn labels the gap is {said(small)} at β = {SMALL:g} and {said(large)} at β = {LARGE:g}: the same, "
        "and that "
        f"of the true qualities, {GAP}. β is the scale in which the policy pays for it, not its size",
    )


def _odds(table: Table) -> Judged:
    panel = table["log_odds"]
    small, large = panel.at(DRAWN, SMALL), panel.at(DRAWN, LARGE)
    verdict = inside(over(small, large).interval, 0.9 * LARGE / SMALL, 1.1 * LARGE / SMALL)
    return Judged(
        verdict, f"log π(best)/π(worst) is {said(small)} nats at β = {SMALL:g} and {said(large)} at β = {LARGE:g}"
    )


def _kl(table: Table) -> Judged:
    points = table["kl"].of(DRAWN)
    verdict = every(above(minus(a, b).interval, 0) for a, b in pairwise(points))
    return Judged(verdict, "KL, nats: " + ", ".join(f"{said(point)} at β = {point.x:g}" for point in points))


def _endless(table: Table) -> Judged:
    panel = table["later"]
    drawn, never = panel.of(DRAWN), panel.of(NEVER)
    verdict = every([*(above(p.interval, 0.2) for p in never), *(inside(p.interval, -0.05, 0.05) for p in drawn)])
    return Judged(
        verdict,
        f"in the last half of the training the gap grew by {said(never[0])} to {said(never[-1])} where labels never "
        f"disagree, and by {said(drawn[0])} where they are drawn",
    )


def _displaced(table: Table) -> Judged:
    small, large = table["chosen"].at(DRAWN, SMALL), table["chosen"].at(DRAWN, LARGE)
    verdict = every([below(small.interval, 0), below(minus(small, large).interval, 0)])
    return Judged(
        verdict,
        f"mean log-prob of preferred answers against the reference: {said(small)} nats at β = {SMALL:g}, {said(large)} "
        "at "
        f"β = {LARGE:g}; an answer that wins most of its pairs but not all gives its mass to the best one",
    )


def _one_rate(table: Table) -> str:
    panel = table["gap"]
    ends = [said(panel.at(EQUAL, beta)) for beta in (SMALL, LARGE)]
    return (
        "With labels that never disagree the gap has no end, and how far it has come is a matter of the learning rate: "
        "with "
        f"one rate for every β it is {ends[0]} at β = {SMALL:g} and {ends[1]} at β = {LARGE:g}, the other way round "
        "from the "
        "claim, for the gradient in the logits has the factor β and the implicit reward another one."
    )


STUDY = Study(
    name="pairs",
    title="β in DPO: the gap, the KL, and where the likelihood goes",
    setting=(
        f"Four answers of true quality 0, 1, 2 and {GAP}, a uniform reference, {PAIRS} pairs a seed, and {STEPS} steps "
        "of "
        "gradient descent on oneloop's DPO loss over all of them. The learning rate is 4/β², so that every β moves the "
        "implicit reward at the same pace, or 4 for every β. Labels are drawn by Bradley–Terry, or never disagree."
    ),
    claims=(
        Claim(
            "A small β blows up the gap between the best and the worst answer's implicit reward",
            "founding documents, on DPO's β",
            _gap,
        ),
        Claim("A small β blows up the log-odds of the two: they go as 1/β", "arXiv:2305.18290, eq. 4", _odds),
        Claim(
            "A smaller β lets the policy go farther from the reference", "founding documents, β as KL temperature", _kl
        ),
        Claim(
            "Where labels never disagree, no gap is ever enough; drawn labels have an end",
            "arXiv:2310.12036, section 4.2",
            _endless,
        ),
        Claim(
            "Likelihood displacement: at a small β even preferred answers become rarer than they were",
            "arXiv:2410.08847",
            _displaced,
        ),
    ),
    run=run,
    told=_one_rate,
)
