"""GAE's λ on a random walk whose values are known: bias and variance of what it says of the first action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oneloop.objective.advantage import GAE
from oneloop.seeds import named_seed
from oneloop.studies.judge import above, below, every, inside, minus, said
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table, Verdict

STATES, START, RIGHT = 7, 3, 0.55
"""A walk over 7 states from the middle one; past the left end it ends with −1, past the right one with +1."""
LAMS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0)
GOOD, ROUGH = "exact critic", "critic that is off by 0.2"
ERRORS = {GOOD: 0.0, ROUGH: 0.2}
"""Standard deviation of the critic's error, a state."""
WALKS, QUICK_WALKS = 10_000, 4_000
BATCHES = (1, 32, 1024)
"""Walks of each action whose mean is taken."""
MANY = 32


def walk_values() -> Float[Tensor, " S"]:
    """V = r + P V: the linear system of the walk."""
    moves = torch.zeros(STATES, STATES, dtype=torch.float64)
    rewards = torch.zeros(STATES, dtype=torch.float64)
    for state in range(STATES):
        for step, chance in ((1, RIGHT), (-1, 1 - RIGHT)):
            if 0 <= state + step < STATES:
                moves[state, state + step] = chance
            else:
                rewards[state] += chance * step
    return torch.linalg.solve(torch.eye(STATES, dtype=torch.float64) - moves, rewards)


def walks(count: int, rng: torch.Generator) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """States, steps (±1) and which are real, until every walk has ended."""
    state = torch.full((count,), START)
    states, steps, live = [], [], []
    while bool(((state >= 0) & (state < STATES)).any()):
        inside_walk = (state >= 0) & (state < STATES)
        step = 2 * (torch.rand(count, generator=rng, dtype=torch.float64) < RIGHT).long() - 1
        states.append(state.clamp(0, STATES - 1))
        steps.append(step)
        live.append(inside_walk)
        state = torch.where(inside_walk, state + step, state)
    return torch.stack(states, 1), torch.stack(steps, 1), torch.stack(live, 1)


def run(seeds: Sequence[int], quick: bool) -> Table:
    bias, variance, error = [], [], []
    for name, off in ERRORS.items():
        measured = [_by_lam(seed, off, QUICK_WALKS if quick else WALKS) for seed in seeds]
        for place, lam in enumerate(LAMS):
            biases, variances = zip(*(one[place] for one in measured), strict=True)
            bias.append(Point(name, lam, biases))
            variance.append(Point(name, lam, variances))
            for batch in BATCHES if name == ROUGH else ():
                errors = tuple(b + v / batch for b, v in zip(biases, variances, strict=True))
                error.append(Point(f"{name}, {batch} of each", lam, errors))
    return {
        "bias": Panel("bias² of Â(right) − Â(left), reward²", "λ", tuple(bias)),
        "variance": Panel("variance of Â(right) − Â(left), reward²", "λ", tuple(variance)),
        "error": Panel("mean squared error of a batch's mean, reward²", "λ", tuple(error), y_scale="log"),
    }


def _by_lam(seed: int, error: float, count: int) -> list[tuple[float, float]]:
    """Bias² and variance of the difference between the two first actions, for each λ."""
    rng = torch.Generator().manual_seed(named_seed("chain", seed))
    critic = walk_values() + error * torch.randn(STATES, generator=rng, dtype=torch.float64)
    states, steps, live = walks(count, rng)
    ends = live & ~torch.cat([live[:, 1:], torch.zeros_like(live[:, :1])], 1)
    rewards = torch.where(ends, steps, 0).double()
    group = torch.arange(count)
    values = critic[states]
    return [
        _scatter(GAE(gamma=1.0, lam=lam, whiten=False)(rewards, values, live, group).advantages[:, 0], steps[:, 0])
        for lam in LAMS
    ]


def _scatter(found: Float[Tensor, " B"], first: Int[Tensor, " B"]) -> tuple[float, float]:
    """What all actions of a state share, such as the critic's error there, moves no policy: the difference counts."""
    values = walk_values()
    right, left = found[first == 1], found[first == -1]
    bias = float(right.mean() - left.mean() - (values[START + 1] - values[START - 1]))
    # the mean of n has scatter of its own, which its square must not be taken for
    noise = float(right.var() / len(right) + left.var() / len(left))
    return bias**2 - noise, float(right.var() + left.var())


def _unbiased(table: Table) -> Judged:
    point, scale = table["bias"].at(ROUGH, 1.0), table["bias"].at(ROUGH, 0.0)
    verdict = every([below(minus(point, scale).interval, 0), _near_zero(point)])
    return Judged(verdict, f"with a critic off by 0.2 the bias² is {said(point)} at λ = 1 and {said(scale)} at λ = 0")


def _near_zero(point: Point) -> Verdict:
    """Within a twentieth of the variance of the critic's error."""
    return inside(point.interval, -0.05 * ERRORS[ROUGH] ** 2, 0.05 * ERRORS[ROUGH] ** 2)


def _trade(table: Table) -> Judged:
    bias, variance = table["bias"], table["variance"]
    falls = below(minus(bias.at(ROUGH, 0.95), bias.at(ROUGH, 0.0)).interval, 0)
    grows = every(above(minus(variance.at(name, 1.0), variance.at(name, 0.0)).interval, 0) for name in ERRORS)
    return Judged(
        every([falls, grows]),
        f"from λ = 0 to 1 the variance goes from {said(variance.at(ROUGH, 0.0))} to {said(variance.at(ROUGH, 1.0))}; "
        "the "
        f"bias² is {said(bias.at(ROUGH, 0.0))} at 0 and {said(bias.at(ROUGH, 0.95))} at 0.95",
    )


def _middle(table: Table) -> Judged:
    panel, name = table["error"], f"{ROUGH}, {MANY} of each"
    middle, ends = panel.at(name, 0.95), [panel.at(name, lam) for lam in (0.0, 1.0)]
    verdict = every(below(minus(middle, end).interval, 0) for end in ends)
    return Judged(
        verdict,
        f"mean squared error with a critic off by 0.2 and {MANY} walks of each action: {said(ends[0])} at λ = 0, "
        f"{said(middle)} at 0.95, {said(ends[1])} at 1",
    )


def _best(table: Table) -> str:
    """Which λ errs least depends on how many walks are averaged: bias stays, variance does not."""
    panel = table["error"]
    least = {batch: min(panel.of(f"{ROUGH}, {batch} of each"), key=lambda p: p.mean).x for batch in BATCHES}
    told = ", ".join(f"{lam:g} with {batch} of each action" for batch, lam in least.items())
    return (
        f"Of those measured, the λ that errs least is {told}: averaging takes variance away and leaves bias, so that "
        "the "
        "best λ belongs to the batch as well as to the critic. What the critic gets wrong about the first state itself "
        "is "
        "in Â of both actions and moves no policy."
    )


def _exact(table: Table) -> Judged:
    bias, variance = table["bias"], table["variance"]
    none = every(_near_zero(point) for point in bias.of(GOOD))
    least = below(minus(variance.at(GOOD, 0.0), variance.at(GOOD, 1.0)).interval, 0)
    return Judged(
        every([none, least]),
        f"with exact values the largest bias² is {said(max(bias.of(GOOD), key=lambda p: p.mean))}, and the variance "
        f"{said(variance.at(GOOD, 0.0))} at λ = 0 against {said(variance.at(GOOD, 1.0))} at 1",
    )


STUDY = Study(
    name="chain",
    title="GAE's λ: bias and variance on a chain with known values",
    setting=(
        f"A random walk over {STATES} states from the middle one, right with chance {RIGHT}; it ends past the left end "
        "with "
        f"−1, past the right one with +1. Its values solve a linear system. A seed is {WALKS} walks and a critic: "
        "exact, or "
        "off by a normal error of 0.2 in each state. Measured is oneloop's GAE at the first action, γ = 1, not "
        "whitened: the "
        "difference between going right and left, which is what moves the policy."
    ),
    claims=(
        Claim(
            "λ = 1 is unbiased whatever the critic says: it is R − V",
            "founding documents, on GAE; arXiv:1506.02438",
            _unbiased,
        ),
        Claim("A larger λ trades the critic's bias for variance", "founding documents, on GAE", _trade),
        Claim(
            f"λ = 0.95 errs less than both ends, in a batch of {MANY} walks of each action",
            "founding documents, which give 0.95 as the usual value",
            _middle,
        ),
        Claim(
            "With an exact critic there is nothing to trade: the smallest λ is the best",
            "arXiv:1506.02438, section 3",
            _exact,
        ),
    ),
    run=run,
    seeds=tuple(range(30)),
    told=_best,
)
