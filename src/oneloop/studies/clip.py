"""The clip's four cases, as the gradients that autograd gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from oneloop.algorithms import CISPO, PPO
from oneloop.objective.surrogate import ClippedRatio, Surrogate
from oneloop.seeds import named_seed
from oneloop.studies.judge import above, below, every, inside, said
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

CLIP, DUAL, WEIGHT = "PPO (0.2)", "PPO, dual clip 3", "CISPO (cap 5)"
SURROGATES: dict[str, Surrogate] = {
    CLIP: PPO.surrogate,
    DUAL: ClippedRatio(0.2, 0.2, dual=3.0),
    WEIGHT: CISPO.surrogate,
}
UP_OUT, UP_BACK, DOWN_OUT, DOWN_BACK, INSIDE = (
    "Â > 0, ρ > 1.2",
    "Â > 0, ρ < 0.8",
    "Â < 0, ρ < 0.8",
    "Â < 0, ρ > 1.2",
    "in the band",
)
CASES = {
    UP_OUT: (1, 1.2, 2.5),
    UP_BACK: (1, 0.2, 0.8),
    DOWN_OUT: (-1, 0.2, 0.8),
    DOWN_BACK: (-1, 1.2, 2.5),
    INSIDE: (1, 0.8, 1.2),
}
"""Sign of the advantage; lowest and highest ratio."""
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.5, 5.0, 7.0, 10.0)
TOKENS = 1000


def run(seeds: Sequence[int], quick: bool) -> Table:
    cases, far = [], []
    for name, surrogate in SURROGATES.items():
        for case, bounds in CASES.items():
            cases.append(Point(name, case, tuple(_share(surrogate, seed, case, *bounds) for seed in seeds)))
        for ratio in RATIOS:
            far.append(Point(name, ratio, tuple(_push(surrogate, seed, ratio) for seed in seeds)))
    return {
        "cases": Panel("tokens with a gradient, share", "case", tuple(cases)),
        "far": Panel("|∂L/∂log π| ÷ |Â|, where Â < 0", "ρ = π_θ/π_old", tuple(far)),
    }


def _slope(surrogate: Surrogate, ratio: Float[Tensor, "1 T"], advantages: Float[Tensor, "1 T"]) -> Float[Tensor, "1 T"]:
    """∂L/∂log π_θ of each token, by autograd."""
    logprobs = ratio.log().requires_grad_()
    loss, _ = surrogate(logprobs, torch.zeros_like(ratio), advantages, torch.ones_like(ratio, dtype=torch.bool))
    (slope,) = torch.autograd.grad(loss.sum(), logprobs)
    return slope


def _share(surrogate: Surrogate, seed: int, case: str, sign: int, low: float, high: float) -> float:
    rng = torch.Generator().manual_seed(named_seed("clip", seed, case))
    inner = 0.001 + 0.998 * torch.rand(1, TOKENS, generator=rng, dtype=torch.float64)
    advantages = sign * (0.1 + torch.rand(1, TOKENS, generator=rng, dtype=torch.float64))
    slope = _slope(surrogate, low + (high - low) * inner, advantages)
    return float((slope != 0).double().mean())


def _push(surrogate: Surrogate, seed: int, ratio: float) -> float:
    """How hard a bad token is pushed, as a factor of its advantage."""
    rng = torch.Generator().manual_seed(named_seed("clip", seed))
    advantages = -0.1 - torch.rand(1, TOKENS, generator=rng, dtype=torch.float64)
    return float((_slope(surrogate, torch.full_like(advantages, ratio), advantages) / advantages).abs().mean())


def _four(table: Table) -> Judged:
    panel = table["cases"]
    gone = [panel.at(CLIP, case) for case in (UP_OUT, DOWN_OUT)]
    kept = [panel.at(CLIP, case) for case in (UP_BACK, DOWN_BACK, INSIDE)]
    verdict = every([*(inside(p.interval, 0, 0) for p in gone), *(inside(p.interval, 1, 1) for p in kept)])
    return Judged(
        verdict,
        f"tokens with a gradient: {said(gone[0])} of those already likelier with Â > 0, {said(gone[1])} of those "
        "already "
        f"rarer with Â < 0; {said(kept[0])} and {said(kept[1])} of those that went the wrong way",
    )


def _unbounded(table: Table) -> Judged:
    panel, ends = table["far"], (table["far"].at(CLIP, RATIOS[-1]), table["far"].at(DUAL, RATIOS[-1]))
    verdict = every([above(ends[0].interval, 9.99), inside(ends[1].interval, 0, 0)])
    return Judged(
        verdict,
        f"at ρ = 10 a token with Â < 0 is pushed {said(ends[0])} times its advantage by PPO, {said(ends[1])} with the "
        "dual "
        f"clip, and {said(panel.at(WEIGHT, RATIOS[-1]))} by CISPO",
    )


def _never(table: Table) -> Judged:
    points = table["cases"].of(WEIGHT)
    verdict = every([*(inside(p.interval, 1, 1) for p in points), below(table["far"].at(WEIGHT, 10.0).interval, 5.001)])
    return Judged(
        verdict, f"tokens with a gradient in every case: {said(points[0])} or more, none with a weight above 5"
    )


STUDY = Study(
    name="clip",
    title="The clip's four cases as measured gradients",
    setting=(
        f"oneloop's own surrogates on {TOKENS} random tokens of each case, ratios within the case and advantages of "
        "0.1 to "
        "1.1; the gradient in log π_θ is autograd's."
    ),
    claims=(
        Claim(
            "The clip takes the gradient away in two of its four cases: where the token has already gone far the way "
            "its "
            "advantage points. Where it went the other way, it stays",
            "founding documents, the four cases of clipping",
            _four,
        ),
        Claim(
            "With Â < 0 nothing bounds the push on a token whose ratio exploded; the dual clip does",
            "founding documents, on the clip; arXiv:1912.09729",
            _unbounded,
        ),
        Claim("CISPO leaves every token its gradient, and bounds its weight", "arXiv:2506.13585, section 3.1", _never),
    ),
    run=run,
)
