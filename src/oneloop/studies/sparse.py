"""Sparse against shaped rewards: how fast each is learned, and what has been learned in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.algorithms import PPO, RLOO, PolicyGradient
from oneloop.loop import train
from oneloop.studies.judge import above, below, every, inside, minus, said
from oneloop.studies.line import (
    GOAL,
    LONGEST,
    STARTS,
    STAY,
    Reward,
    Walk,
    Walker,
    Walks,
    at_end,
    moved,
    sparse,
    success,
)
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

TALK = 0.25
"""What a token that leads nowhere earns under the bonus: from every start, twelve of them earn more than to arrive.

From the nearest one, five tokens go on and seven may stay: 7 · 0.25 + 1 < 12 · 0.25. At 0.2 both are worth the same."""
HALF = GOAL / 2
SPARSE, GRADED, POTENTIAL, BONUS = "sparse", "graded", "potential", "bonus"


def graded(walk: Walk) -> Float[Tensor, "B T"]:
    """+1 for arriving, +0.5 for half of the way, 0: at the last token."""
    return at_end(walk, 0.5 * (walk.end >= HALF).double() + 0.5 * (walk.end == GOAL).double())


def potential(walk: Walk) -> Float[Tensor, "B T"]:
    """r + Φ(s′) − Φ(s) with Φ = place/goal, and 0 once the walk has ended."""
    return sparse(walk) + difference(walk)


def difference(walk: Walk) -> Float[Tensor, "B T"]:
    """Φ(s′) − Φ(s): over a whole row it adds up to −Φ(start), whatever was done."""
    phi = walk.places.double() / GOAL
    after = phi[:, 1:].scatter(1, walk.last[:, None], 0.0)
    return torch.where(walk.live, after - phi[:, :-1], 0.0)


def bonus(walk: Walk) -> Float[Tensor, "B T"]:
    """A reward for a token that looks busy and leads nowhere."""
    return sparse(walk) + torch.where(walk.live & (walk.actions == STAY), TALK, 0.0)


REWARDS: Mapping[str, Reward] = {SPARSE: sparse, GRADED: graded, POTENTIAL: potential, BONUS: bonus}
TOKENS, WHOLE = "PPO (credit by token)", "RLOO (credit by answer)"
WAYS: dict[str, PolicyGradient] = {
    TOKENS: replace(PPO, kl=None, target_kl=None, epochs=2),
    WHOLE: replace(RLOO, kl=None),
}
STEPS, QUICK_STEPS = 60, 8
LOOKS = 8
GROUP, RATE, CRITIC_RATE = 8, 0.04, 0.05
BEGIN = -0.7
"""Logit of going on: at first one walk in four hundred arrives."""


def run(seeds: Sequence[int], quick: bool) -> Table:
    steps = QUICK_STEPS if quick else STEPS
    course, speed, end = [], [], []
    for reward in REWARDS:
        for way in WAYS:
            found = [_course(reward, way, seed, steps) for seed in seeds]
            speed.append(Point(way, reward, tuple(fmean(one) for one in found)))
            end.append(Point(way, reward, tuple(one[-1] for one in found)))
            if way == TOKENS:
                for place in range(0, steps + 1, steps // LOOKS):
                    course.append(Point(reward, place, tuple(one[place] for one in found)))
    best = [Point("the best policy there is", reward, (_best(reward),) * len(seeds)) for reward in REWARDS]
    return {
        "course": Panel("chance to arrive, PPO", "step", tuple(course)),
        "speed": Panel("chance to arrive, mean over training", "reward", tuple(speed)),
        "end": Panel("chance to arrive at the end", "reward", (*end, *best)),
    }


def _course(reward: str, way: str, seed: int, steps: int) -> list[float]:
    """The chance to arrive before the first step and after each."""
    models = Walker(RATE, CRITIC_RATE, begin=BEGIN)
    walks = Walks(models, seed, REWARDS[reward], groups=1, group_size=GROUP)
    train(WAYS[way], walks, models, Kept(), steps=steps, minibatch=len(STARTS), max_tokens=1 << 20, seed=seed)
    return [float(success(logits)) for logits in walks.steps]


def _best(reward: str) -> float:
    """How often a policy arrives that has the most of this reward, by going back from the last token.

    The policy may know the time, which those that are trained do not. Among equals it goes on.
    """
    places = torch.arange(GOAL)
    value, arrived = torch.zeros(GOAL + 1, dtype=torch.float64), torch.zeros(GOAL + 1, dtype=torch.float64)
    arrived[GOAL] = 1.0
    for time in reversed(range(LONGEST)):
        worth = torch.stack(
            [step_worth(reward, time, action) + value[moved(places, torch.tensor(action))] for action in range(3)]
        )
        taken = 2 - worth.flip(0).argmax(0)  # the last of equals
        after = moved(places, taken)
        value = torch.cat([worth.gather(0, taken[None])[0], torch.zeros(1, dtype=torch.float64)])
        arrived = torch.cat([arrived[after], torch.ones(1, dtype=torch.float64)])
    return float(arrived[list(STARTS)].mean())


def step_worth(reward: str, time: int, action: int) -> Float[Tensor, " G"]:
    """The reward of one token from each place: that of a walk whose only live token it is."""
    places = torch.arange(GOAL)
    after, rows, last = moved(places, torch.tensor(action)), len(places), time == LONGEST - 1
    walk = Walk(places, torch.full((rows, 1), action), torch.stack([places, after], 1), torch.ones(rows, 1).bool())
    ends = (after == GOAL) | last
    if reward == POTENTIAL:
        phi = torch.where(ends, 0.0, after.double() / GOAL) - places.double() / GOAL
        return sparse(walk)[:, 0] + phi
    found = REWARDS[reward](walk)[:, 0]
    return torch.where(ends, found, 0.0) if reward == GRADED else found


def _at(table: Table, key: str, way: str, reward: str) -> Point:
    return table[key].at(way, reward)


def _faster(table: Table, reward: str, ways: Sequence[str]) -> Judged:
    verdicts, told = [], []
    for way in ways:
        shaped, plain = _at(table, "speed", way, reward), _at(table, "speed", way, SPARSE)
        verdicts.append(above(minus(shaped, plain).interval, 0))
        told.append(f"{said(shaped)} against {said(plain)} with the sparse reward ({way})")
    return Judged(every(verdicts), f"mean chance to arrive over training: {', '.join(told)}")


def _graded(table: Table) -> Judged:
    return _faster(table, GRADED, tuple(WAYS))


def _potential(table: Table) -> Judged:
    return _faster(table, POTENTIAL, (TOKENS,))


def _kept(table: Table) -> Judged:
    best, plain = (_at(table, "end", "the best policy there is", reward) for reward in (POTENTIAL, SPARSE))
    end = _at(table, "end", TOKENS, POTENTIAL)
    verdict = every([inside(minus(best, plain).interval, 0, 0), above(end.interval, 0.9)])
    return Judged(
        verdict,
        f"the best policy under it arrives with chance {said(best)}, as under the sparse reward, and PPO's in the end "
        f"with {said(end)} ({said(_at(table, 'end', TOKENS, SPARSE))} with the sparse reward)",
    )


def _nothing(table: Table) -> Judged:
    apart = [minus(_at(table, key, WHOLE, POTENTIAL), _at(table, key, WHOLE, SPARSE)) for key in ("speed", "end")]
    verdict = every(inside(point.interval, -1e-6, 1e-6) for point in apart)
    return Judged(
        verdict,
        f"RLOO's runs with and without it differ by {said(apart[0])}: it adds the same number, −Φ(start), to every "
        "answer of a group, which a baseline takes away again",
    )


def _hacked(table: Table) -> Judged:
    ends = [_at(table, "end", way, BONUS) for way in WAYS]
    plain = [_at(table, "end", way, SPARSE) for way in WAYS]
    best = _at(table, "end", "the best policy there is", BONUS)
    verdict = every(below(minus(a, b).interval, 0) for a, b in zip(ends, plain, strict=True))
    told = ", ".join(f"{said(point)} ({point.series})" for point in ends)
    return Judged(verdict, f"chance to arrive in the end: {told}; the best policy under it arrives with {said(best)}")


STUDY = Study(
    name="sparse",
    title="Sparse against shaped rewards",
    setting=(
        f"A walk of at most {LONGEST} tokens (back, stay, on) from one of {len(STARTS)} prompts to a goal, at which "
        "one in four hundred arrives before training. Sparse: 1 for arriving, at the last token. Graded: 0.5 at the "
        "last token where half of the way was made, 1 for arriving. Potential: sparse, and Φ(s′) − Φ(s) at each "
        f"token, Φ = place/{GOAL}, 0 when the walk has ended. Bonus: sparse, and {TALK:g} for every token that stays. "
        f"{STEPS} steps through oneloop's own loop, {len(STARTS)} groups of {GROUP}, no KL; the policy has logits by "
        "place. What counts is the chance to arrive, exactly, whatever was rewarded."
    ),
    claims=(
        Claim(
            "A graded reward (1, 0.5, 0) is learned faster than a sparse one",
            "founding documents, on graded rewards",
            _graded,
        ),
        Claim(
            "Shaping by a potential makes learning faster where each token has its own credit",
            "founding documents, on shaped rewards; Ng, Harada and Russell 1999",
            _potential,
        ),
        Claim(
            "It leaves the best policy as it was, and what is learned in the end is to arrive",
            "Ng, Harada and Russell 1999, theorem 1",
            _kept,
        ),
        Claim(
            "To a method with one advantage for a whole answer (GRPO, RLOO) a potential says nothing",
            "asked beside it",
            _nothing,
        ),
        Claim(
            "A bonus that is no potential teaches to collect the bonus: fewer arrive than with the sparse reward",
            "founding documents, on reward hacking; Ng, Harada and Russell 1999, section 1",
            _hacked,
        ),
    ),
    run=run,
)
