"""How far PPO's true KL goes with K epochs over one batch, with and without early stopping; TRPO beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oneloop.algorithms import PPO, TRPO, PolicyGradient, TrustRegion
from oneloop.loop import train
from oneloop.objective.surrogate import ClippedRatio
from oneloop.studies.contexts import CONTEXTS, Draws, TablePolicy, true_kl
from oneloop.studies.judge import above, below, every, inside, minus, said
from oneloop.studies.once import Kept
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

EPOCHS, QUICK_EPOCHS = (1, 2, 4, 8, 16, 32), (1, 8)
STEPS, QUICK_STEPS = 5, 1
TARGET = 0.02
"""Nats per action."""
FREE, STOPPED, UNCLIPPED = "clip 0.2", f"clip 0.2, stop at KL {TARGET:g}", "no clip"
VARIANTS: dict[str, PolicyGradient] = {
    FREE: replace(PPO, kl=None, target_kl=None),
    STOPPED: replace(PPO, kl=None, target_kl=TARGET),
    UNCLIPPED: replace(PPO, kl=None, target_kl=None, surrogate=ClippedRatio(low=1.0, high=1e9)),
}
HARD = f"TRPO, δ = {TARGET:g}"
BOUNDED = replace(TRPO, kl=None, region=TrustRegion(max_kl=TARGET, damping=1e-3))
"""One step a batch, which takes the whole of it. The Fisher of the table begins with 1/(16·8) on its diagonal, so that
the usual damping of 0.1 would decide the length of every step: 0.0015 nats of the 0.02."""
GROUP, NOISE, RATE = 8, 0.3, 0.03


def run(seeds: Sequence[int], quick: bool) -> Table:
    steps = QUICK_STEPS if quick else STEPS
    panels: dict[str, list[Point]] = {"kl": [], "worst": [], "band": [], "gain": []}

    def measure(name: str, algorithm: PolicyGradient, minibatch: int) -> None:
        found = [_trained(algorithm, seed, steps, minibatch) for seed in seeds]
        for key, values in zip(panels, zip(*found, strict=True), strict=True):
            panels[key].append(Point(name, algorithm.epochs, values))

    for name, algorithm in VARIANTS.items():
        for epochs in QUICK_EPOCHS if quick else EPOCHS:
            measure(name, replace(algorithm, epochs=epochs), CONTEXTS // 4)
    measure(HARD, BOUNDED, CONTEXTS)
    kl, worst, band, gain = panels.values()
    axis = "K, epochs over a batch"
    return {
        "kl": Panel("true KL(π_old ‖ π_new) of a step, nats", axis, tuple(kl), "log", "log"),
        "worst": Panel("the largest of a run's steps, nats", axis, tuple(worst), "log", "log"),
        "band": Panel("tokens outside the band at the last update, share", axis, tuple(band), "log"),
        "gain": Panel("expected reward that a step adds, mean of a run", axis, tuple(gain), "log"),
    }


def _trained(algorithm: PolicyGradient, seed: int, steps: int, minibatch: int) -> tuple[float, float, float, float]:
    """Mean and largest true KL of a run's steps, the mean share of tokens with a ratio outside 1 ± 0.2, the gain."""
    models, recorder = TablePolicy(RATE), Kept()
    draws = Draws(models, seed, group_size=GROUP, noise=NOISE)
    train(algorithm, draws, models, recorder, steps=steps, minibatch=minibatch, max_tokens=1 << 20, seed=seed)
    moved = [true_kl(old, new) for old, new in zip(draws.steps, draws.steps[1:], strict=False)]
    outside = [_outside(draws, step) for step in range(steps)]
    gain = (draws.expected(draws.steps[-1]) - draws.expected(draws.steps[0])) / steps
    return sum(moved) / len(moved), max(moved), sum(outside) / len(outside), gain


def _outside(draws: Draws, step: int) -> float:
    """Of the step's own tokens, after its last update."""
    contexts, actions = draws.drawn[step].unbind(1)
    old, new = (logits.log_softmax(-1)[contexts, actions] for logits in draws.steps[step : step + 2])
    ratio = (new - old).exp()
    return float(((ratio < 0.8) | (ratio > 1.2)).double().mean())


def _grows(table: Table) -> Judged:
    points = table["kl"].of(FREE)
    verdict = above(minus(points[-1], points[0]).interval, TARGET)
    return Judged(
        verdict,
        "true KL of a step, nats: " + ", ".join(f"{said(point)} with K = {point.x:g}" for point in points),
    )


def _holds_band(table: Table) -> Judged:
    points = table["band"].of(FREE)
    verdict = every(inside(point.interval, 0, 0.01) for point in points)
    return Judged(
        verdict,
        f"after a step {said(points[0])} of its tokens are outside 1 ± 0.2 with K = {points[0].x:g}, "
        f"{said(points[-1])} with "
        f"K = {points[-1].x:g}: parameters are shared and Adam has momentum, so that a token without a gradient still "
        "moves",
    )


def _less(table: Table) -> Judged:
    free, unclipped = (table["kl"].of(name)[-1] for name in (FREE, UNCLIPPED))
    verdict = above(minus(unclipped, free).interval, 0)
    return Judged(verdict, f"with K = {free.x:g}, {said(free)} nats with the clip and {said(unclipped)} without it")


def _stops(table: Table) -> Judged:
    mean, worst = table["kl"].of(STOPPED)[-1], table["worst"].of(STOPPED)[-1]
    verdict = inside(worst.interval, 0, TARGET)
    return Judged(
        verdict,
        f"with K = {worst.x:g} and a target of {TARGET:g} nats the true KL of a step is {said(mean)} and the largest "
        f"of a run {said(worst)}: the estimate is looked at after every minibatch",
    )


def _bounds(table: Table) -> Judged:
    free, stopped = (table["worst"].of(name)[-1] for name in (FREE, STOPPED))
    verdict = every([above(free.interval, 2 * TARGET), inside(stopped.interval, 0, 2 * TARGET)])
    return Judged(
        verdict, f"largest KL of a run with K = {free.x:g}: {said(stopped)} nats with the stop, {said(free)} without"
    )


def _hard(table: Table) -> Judged:
    (worst,), (mean,) = table["worst"].of(HARD), table["kl"].of(HARD)
    free = table["worst"].of(FREE)[-1]
    return Judged(
        below(worst.interval, TARGET),
        f"the largest step of a run goes {said(worst)} nats far, the mean one {said(mean)}; PPO with K = {free.x:g} "
        f"goes {said(free)}",
    )


def _as_good(table: Table) -> Judged:
    stopped, (hard,) = table["gain"].of(STOPPED)[-1], table["gain"].of(HARD)
    verdict = above(minus(stopped, hard).interval, -0.1 * hard.mean)
    kl, (hard_kl,) = table["kl"].of(STOPPED)[-1], table["kl"].of(HARD)
    return Judged(
        verdict,
        f"with K = {stopped.x:g} and the stop a step adds {said(stopped)} of reward at {said(kl)} nats, TRPO's "
        f"{said(hard)} at {said(hard_kl)}; difference {said(minus(stopped, hard))}",
    )


STUDY = Study(
    name="trust",
    title="PPO is only an approximate trust region",
    setting=(
        f"A contextual bandit of {CONTEXTS} contexts and 8 actions with noisy rewards, a softmax table and a table of "
        "values, "
        f"through oneloop's own loop: {STEPS} steps of PPO, groups of {GROUP}, four minibatches an epoch, Adam with a "
        f"learning rate of 0.03. TRPO beside it: one natural step on the whole batch, δ = {TARGET:g} nats, damping "
        "0.001, with its line search. Every policy can be listed, so that the KL between before and after a step is "
        "exact."
    ),
    claims=(
        Claim(
            "PPO's clip is no trust region: the true KL of a step grows with the number of epochs",
            "founding documents, PPO as an approximation of TRPO",
            _grows,
        ),
        Claim("The clip keeps the ratios of the batch's tokens within the band", "asked beside it", _holds_band),
        Claim(
            "The clip holds the policy back, against the same objective without one",
            "founding documents, on the clip",
            _less,
        ),
        Claim(
            "Early stopping keeps every step at its target",
            "founding documents, early stop when approximate KL exceeds a target",
            _stops,
        ),
        Claim(
            "Early stopping keeps the largest step within twice its target, where the clip alone does not",
            "asked beside it",
            _bounds,
        ),
        Claim(
            "TRPO keeps every step of the policy within δ, by its line search",
            "founding documents, PPO as an approximation of TRPO; arXiv:1502.05477, appendix C",
            _hard,
        ),
        Claim(
            "PPO loses nothing by being approximate: stopped at δ, its steps gain at least nine tenths of TRPO's",
            "founding documents, PPO as TRPO's cheap replacement",
            _as_good,
        ),
    ),
    run=run,
    seeds=tuple(range(8)),
)
