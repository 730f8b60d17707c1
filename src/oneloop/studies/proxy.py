"""Reward over-optimisation: what happens to the true reward while a flawed one is maximised, by √KL and by anchor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.algorithms import PPO, PolicyGradient
from oneloop.loop import train
from oneloop.objective.divergence import KL, exact_kl
from oneloop.seeds import named_seed
from oneloop.studies.contexts import CONTEXTS, Draws, TablePolicy
from oneloop.studies.judge import above, below, every, inside, minus, said, short
from oneloop.studies.once import Kept
from oneloop.studies.scaling import (
    LOG,
    SQUARE,
    best_of_kl,
    best_of_kl_formula,
    bootstrapped,
    fitted,
)
from oneloop.studies.study import Claim, Judged, Panel, Point, Scale, Study, Table

ANSWERS = 64
"""Of each prompt: an optimiser has to have something to find."""
NORMAL, HEAVY = "normal error", "heavy-tailed error"
TAIL = 2
"""Degrees of freedom of the heavy-tailed error (Student's t): a few answers are overrated by much."""
BETAS, QUICK_BETAS = (0.0, 0.3, 1.0, 3.0), (0.0, 1.0)
ANCHOR = 1.0
BEST_OF = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FITTED = BEST_OF[1:-1]
"""At whose distances the ways are looked at, and the forms fitted; PPO's where every seed comes so far."""
EQUAL = 8
"""Of best of n, at whose KL the ways are laid side by side."""
STEPS, QUICK_STEPS = 40, 16
LOOKS = 10
GROUP, QUICK_GROUP = 8, 4
RATE, QUICK_RATE = 0.15, 0.4
GOLD, PROXY = "gold", "proxy"
BEST, POLICY, HELD = "best of n", "PPO", f"PPO, β = {ANCHOR:g}"
FORMS = {BEST: SQUARE, POLICY: LOG}
CLOSE = 0.05
"""What counts as none: of a difference, and of a form's error as a share of the highest reward."""
DISTANCES = tuple(sqrt(best_of_kl(count, ANSWERS)) for count in FITTED)


def rewards_of(seed: int, error: str) -> tuple[Float[Tensor, "C A"], Float[Tensor, "C A"]]:
    """Gold: standard normal. Proxy: gold and an error of scale 1."""
    rng = np.random.default_rng(named_seed("proxy", seed))
    gold = rng.standard_normal((CONTEXTS, ANSWERS))
    shape = (CONTEXTS, ANSWERS)
    flaw = rng.standard_normal(shape) if error == NORMAL else rng.standard_t(TAIL, shape)
    return torch.tensor(gold), torch.tensor(gold + flaw)


Course = list[tuple[float, float, float]]
"""Gold, proxy and KL to the start, before the first step and after each."""


def run(seeds: Sequence[int], quick: bool) -> Table:
    free = {error: [trained(seed, error, 0.0, quick) for seed in seeds] for error in (NORMAL, HEAVY)}
    looks = {error: [best_of(seed, error) for seed in seeds] for error in (NORMAL, HEAVY)}
    betas = QUICK_BETAS if quick else BETAS
    held = {beta: [trained(seed, HEAVY, beta, quick) for seed in seeds] if beta else free[HEAVY] for beta in betas}
    panels = {"course": _by_step(free), "anchor": _by_beta(held), "best": _by_n(looks)}
    for key, error in (("normal", NORMAL), ("heavy", HEAVY)):
        panels |= _by_distance(key, error, free[error], looks[error], held[ANCHOR] if error == HEAVY else [])
    return panels | _forms(panels) | {"kl": _kl_of_best(len(seeds))}


def _by_step(free: dict[str, list[Course]]) -> Panel:
    points = []
    for error, courses in free.items():
        steps = len(courses[0]) - 1
        for kind, name in enumerate((GOLD, PROXY)):
            for place in range(0, steps + 1, steps // LOOKS):
                points.append(Point(f"{name}, {error}", place, tuple(one[place][kind] for one in courses)))
    words = "reward of PPO without an anchor, standard deviations of gold"
    return Panel(words, "step", tuple(points), "linear", "symlog")


def _by_beta(held: dict[float, list[Course]]) -> Panel:
    points = []
    for beta, courses in held.items():
        points.append(Point(f"{GOLD}, {HEAVY}", beta, tuple(one[-1][0] for one in courses)))
        points.append(Point("√KL, √nats", beta, tuple(sqrt(one[-1][2]) for one in courses)))
    return Panel("gold reward, and √KL, at the end of PPO", "β", tuple(points))


def _by_n(looks: dict[str, list[list[tuple[float, float]]]]) -> Panel:
    points = [
        Point(f"{name}, {error}", count, tuple(one[place][kind] for one in found))
        for error, found in looks.items()
        for kind, name in enumerate((GOLD, PROXY))
        for place, count in enumerate(BEST_OF)
    ]
    return Panel("reward of best of n by the proxy", "n", tuple(points), "log", "symlog")


def _by_distance(
    key: str, error: str, free: list[Course], looks: list[list[tuple[float, float]]], held: list[Course]
) -> dict[str, Panel]:
    """What was gained at the distances of best of n, by gold; and by the proxy."""
    panels = {}
    scales: dict[str, Scale] = {GOLD: "linear", PROXY: "log"}
    for kind, (name, scale) in enumerate(scales.items()):
        points = []
        for place, distance in enumerate(DISTANCES):
            points.append(Point(BEST, distance, tuple(one[1 + place][kind] - one[0][kind] for one in looks)))
            for way, courses in ((POLICY, free), (HELD, held)):
                found = [at(one, kind, distance) for one in courses]
                gained = tuple(value for value in found if value is not None)
                if courses and len(gained) == len(courses):
                    points.append(Point(way, distance, gained))
        words = f"{name} reward gained, {error}"
        panels[f"{key}_{name}"] = Panel(words, "√KL(π ‖ start), √nats", tuple(points), "linear", scale)
    return panels


def at(course: Course, kind: int, distance: float) -> float | None:
    """Gold (0) or proxy (1) gained where a run first comes so far, between two of its steps; None: it never does."""
    for before, after in pairwise(course):
        gone = [sqrt(max(kl, 0.0)) for *_, kl in (before, after)]
        if gone[1] >= distance:
            return float(np.interp(distance, gone, (before[kind], after[kind]))) - course[0][kind]
    return None


def _forms(panels: Table) -> dict[str, Panel]:
    """Each seed's α and β, and how far the curve is from the form: its own, and the other's."""
    found, errors = [], []
    for key, error in (("normal", NORMAL), ("heavy", HEAVY)):
        for way, form in FORMS.items():
            points = panels[f"{key}_{GOLD}"].of(way)
            distances = [float(point.x) for point in points]
            gained = list(zip(*(point.values for point in points), strict=True))
            top = max(point.mean for point in points)
            for one in (SQUARE, LOG):
                fits = [fitted(one, distances, values) for values in gained]
                errors.append(Point(one.name, f"{way}, {error}", tuple(fit.error / top for fit in fits)))
                if one is form:
                    found += [
                        Point(f"{way}, {error}", "α", tuple(fit.alpha for fit in fits)),
                        Point(f"{way}, {error}", "β", tuple(fit.beta for fit in fits)),
                    ]
    return {
        "fit": Panel("coefficients of the fits, standard deviations of gold", "", tuple(found)),
        "error": Panel("error of the fit (rms), share of the highest gold reward", "", tuple(errors)),
    }


def _kl_of_best(seeds: int) -> Panel:
    points = []
    for count in BEST_OF:
        points.append(Point(f"exact, {ANSWERS} answers", count, (best_of_kl(count, ANSWERS),) * seeds))
        points.append(Point("log n − (n − 1)/n", count, (best_of_kl_formula(count),) * seeds))
    return Panel("KL(best of n ‖ start), nats", "n", tuple(points), "log")


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


def trained(seed: int, error: str, beta: float, quick: bool) -> Course:
    """PPO on the proxy alone."""
    gold, proxy = rewards_of(seed, error)
    steps, group, rate = (QUICK_STEPS, QUICK_GROUP, QUICK_RATE) if quick else (STEPS, GROUP, RATE)
    models = TablePolicy(rate, actions=ANSWERS)
    draws = Draws(models, seed, group_size=group, noise=0.0, rewards=proxy)
    train(_algorithm(beta), draws, models, Kept(), steps=steps, minibatch=CONTEXTS, max_tokens=1 << 20, seed=seed)
    start = draws.steps[0]

    def mean(logits: Float[Tensor, "C A"], reward: Float[Tensor, "C A"]) -> float:
        return float((logits.softmax(-1) * reward).sum(1).mean())

    return [(mean(logits, gold), mean(logits, proxy), float(exact_kl(logits, start).mean())) for logits in draws.steps]


def _algorithm(beta: float) -> PolicyGradient:
    return replace(PPO, kl=KL(beta, at="reward", estimator="k1") if beta else None, target_kl=None)


def _lost(points: Sequence[Point]) -> tuple[Point, Point, Point]:
    """The best of them, the last, and what of the best is gone at the last: by every other seed.

    The other half of the seeds says which is best: of many points that are alike, the one that looks best in some
    numbers looks too good in the same.
    """
    best = max(points, key=lambda point: fmean(point.values[::2]))
    top, end = (replace(point, values=point.values[1::2]) for point in (best, points[-1]))
    return top, end, minus(top, end)


def _told(points: Sequence[Point], axis: str) -> str:
    top, end, lost = _lost(points)
    return (
        f"half of the seeds put the peak of gold at {axis} {top.x:g}; of the others it is {said(top)} there and "
        f"{said(end)} at {end.x:g}, difference {said(lost)}"
    )


def _overoptimised(table: Table) -> Judged:
    panel = table["course"]
    gold, proxy = panel.of(f"{GOLD}, {HEAVY}"), panel.of(f"{PROXY}, {HEAVY}")
    top, _, lost = _lost(gold)
    then = next(point for point in proxy if point.x == top.x)
    verdict = every([above(lost.interval, 0), above(minus(proxy[-1], then).interval, 0)])
    return Judged(verdict, f"with a heavy-tailed error the proxy goes to {said(proxy[-1])}; {_told(gold, 'step')}")


def _light(table: Table) -> Judged:
    gold = table["course"].of(f"{GOLD}, {NORMAL}")
    verdict = inside(minus(gold[-1], gold[0]).interval, 0.5, 10)
    return Judged(verdict, f"with a normal error of the same scale, {_told(gold, 'step')}")


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
    return Judged(above(_lost(gold)[2].interval, 0), f"with a heavy-tailed error, {_told(gold, 'n =')}")


def _follows(way: str) -> Callable[[Table], Judged]:
    """Whether a way's own form fits its gold reward, and better than the other's."""
    form, other = FORMS[way], *(one for one in (SQUARE, LOG) if one is not FORMS[way])

    def judge(table: Table) -> Judged:
        place = f"{way}, {HEAVY}"
        own, others = (table["error"].at(one.name, place) for one in (form, other))
        return Judged(
            inside(own.interval, 0, CLOSE),
            f"heavy-tailed error: {form.name} leaves an error of {said(own)} of the highest gold reward, "
            f"{other.name} one of {said(others)}",
        )

    return judge


def _apart(table: Table) -> Judged:
    """Own − other's error, both ways."""
    found = []
    for way, form in FORMS.items():
        own, other = (table["error"].at(one.name, f"{way}, {HEAVY}") for one in (form, *({SQUARE, LOG} - {form})))
        found.append((way, minus(own, other)))
    told = ", ".join(f"{said(change)} for {way}" for way, change in found)
    verdict = every(below(change.interval, 0) for _, change in found)
    return Judged(verdict, f"error with its own form − with the other's, heavy-tailed error: {told}")


def _laid(table: Table, what: str, one: str, other: str) -> tuple[Point, Point, Point]:
    """Two ways at the KL of best of `EQUAL`, and their difference."""
    panel, place = table[f"heavy_{what}"], DISTANCES[FITTED.index(EQUAL)]
    first, second = (panel.at(way, place) for way in (one, other))
    return first, second, minus(first, second)


def _slower(table: Table) -> Judged:
    gold, proxy = (_laid(table, what, BEST, POLICY) for what in (GOLD, PROXY))
    return Judged(
        every(above(lead.interval, 0) for *_, lead in (gold, proxy)),
        f"at the KL of best of {EQUAL}, heavy-tailed error: gold {said(gold[0])} by best of n and {said(gold[1])} by "
        f"PPO, difference {said(gold[2])}; proxy {said(proxy[0])} and {said(proxy[1])}, difference {said(proxy[2])}",
    )


def _frontier(table: Table) -> Judged:
    held, free, lead = _laid(table, GOLD, HELD, POLICY)
    liked, freely, _ = _laid(table, PROXY, HELD, POLICY)
    return Judged(
        inside(lead.interval, -CLOSE, CLOSE),
        f"at the KL of best of {EQUAL}, heavy-tailed error: gold {said(held)} with β = {ANCHOR:g}, {said(free)} "
        f"without, difference {said(lead)}; the proxy {said(liked)} with it, {said(freely)} without",
    )


def _formula(table: Table) -> Judged:
    exact, formula = (table["kl"].of(series) for series in table["kl"].series)
    apart = [minus(two, one) for one, two in zip(exact, formula, strict=True)]
    told = ", ".join(f"{said(one)} and {said(two)} for n = {one.x:g}" for one, two in zip(exact, formula, strict=True))
    return Judged(
        every(inside(change.interval, -CLOSE, CLOSE) for change in apart),
        f"nats, exactly and by the formula: {told}. It is an upper bound (arXiv:2401.01879): of {ANSWERS} answers the "
        "best one is soon drawn twice",
    )


def _coefficients(table: Table) -> str:
    panel = table["fit"]
    lines = []
    for series in panel.series:
        way, form = next((way, form) for way, form in FORMS.items() if series.startswith(way))
        key = "normal" if series.endswith(NORMAL) else "heavy"
        far = max(float(point.x) for point in table[f"{key}_{GOLD}"].of(way))
        told = []
        for name in ("α", "β"):
            point = panel.at(series, name)
            low, high = bootstrapped(point.values)
            told.append(f"{name} = {short(point.mean)} [{short(low)}, {short(high)}]")
        lines.append(f"{series}: R = {form.name} with {told[0]}, {told[1]}, to √KL = {short(far)}")
    return (
        "Fitted coefficients of the gold reward, with 95 % intervals by a bootstrap over seeds: "
        + "; ".join(lines)
        + "."
    )


STUDY = Study(
    name="proxy",
    title="Reward over-optimisation by √KL, and what the KL anchor does about it",
    setting=(
        f"{CONTEXTS} prompts with {ANSWERS} answers each. Gold rewards are standard normal; the proxy is gold plus an "
        f"error, normal or heavy-tailed (Student's t with {TAIL} degrees of freedom). PPO through oneloop's own loop "
        f"maximises the proxy for {STEPS} steps of four epochs with {GROUP} answers to each prompt, β·KL to the start "
        "in the reward. Best of n takes the answer that the proxy likes best, exactly, and its KL is exact, too. Gold "
        "is never shown to any of them. PPO's rewards at the KL of best of n are interpolated between two of its "
        "steps, where it first comes so far, at each distance that every seed reaches. The forms are fitted to gold "
        f"there, seed by seed: best of n for n from {FITTED[0]} to {FITTED[-1]}, PPO at those of the same distances "
        "that it reaches."
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
        Claim(
            f"At the same KL the anchor changes nothing (to {CLOSE:g}): it stops early, and is no better way",
            "arXiv:2210.10760, on the KL penalty",
            _frontier,
        ),
        Claim("Best of n is over-optimised, too, at a large n", "arXiv:2210.10760, on best of n", _many),
        Claim(
            f"Best of n's true reward follows d(α − β d), d = √KL, to {CLOSE:.0%} of its peak".replace("%", " %"),
            "arXiv:2210.10760, introduction",
            _follows(BEST),
        ),
        Claim(
            f"PPO's true reward follows d(α − β log d), to {CLOSE:.0%} of its peak".replace("%", " %"),
            "arXiv:2210.10760, introduction",
            _follows(POLICY),
        ),
        Claim("Each of the two is fitted better by its own form than by the other's", "as above", _apart),
        Claim(
            "For the same KL best of n gains more than PPO, of the true reward and of the proxy",
            "arXiv:2210.10760, RL versus best of n",
            _slower,
        ),
        Claim(
            f"The KL of best of n is log n − (n − 1)/n (to {CLOSE:g} nats)", "arXiv:2210.10760, on best of n", _formula
        ),
    ),
    run=run,
    seeds=tuple(range(20)),
    told=_coefficients,
)
