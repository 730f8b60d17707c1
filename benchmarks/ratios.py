"""From the numbers of processes to what a result says: medians, ratios by round, the peer's best setting, goals.

A ratio is ours divided by theirs, within a round. A goal is met when three of four rounds meet it: it is compared with
the upper quartile of the rounds, and only where there were as many rounds as the case asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from cases.values import Best, Case

Values = dict[str, Any]
"""What one process told."""
Runs = Mapping[str, Sequence[Values]]
"""By engine, its processes by round; one that was left out of later rounds has fewer."""
FINALISTS = 2
"""Settings of a peer that stay after the first round."""


def value_of(run: Values) -> float | None:
    """One number of a process: MiB, or the median of its seconds; None where it failed or never got there."""
    if "error" in run or run.get("reached") is False:
        return None
    return run["mebibytes"] if "mebibytes" in run else median(run["seconds"])


def per_token(run: Values) -> float | None:
    if "error" in run or not run.get("tokens"):
        return None
    return sum(run["seconds"]) / sum(run["tokens"])


def middle(runs: Sequence[Values]) -> float:
    """The median of an engine's rounds; infinite where it has none."""
    values = [value for run in runs if (value := value_of(run)) is not None]
    return median(values) if values else float("inf")


def summarized(runs: Sequence[Values]) -> Values:
    if runs and "error" in runs[-1]:
        return {"error": runs[-1]["error"]}
    values = [value for run in runs if (value := value_of(run)) is not None]
    if len(values) < len(runs):
        return {"median": None, "not_reached": len(runs) - len(values), "rounds": values}
    return {"median": round(median(values), 4), "rounds": values, "versions": runs[-1].get("versions", {})}


def quartile(values: Sequence[float], number: int) -> float:
    """The first, second or third quartile, interpolated between the values; of one value, itself."""
    return round(quantiles(values, n=4, method="inclusive")[number - 1], 4) if len(values) > 1 else values[0]


def compared_with(ours: Sequence[Values], theirs: Sequence[Values], wanted: float | None, rounds: int) -> Values:
    """Ratios by round, ours divided by theirs.

    Args:
        rounds: how many it takes to say whether `wanted` is reached.
    """

    def ratios(number: Callable[[Values], float | None]) -> list[float]:
        pairs = [(number(a), number(b)) for a, b in zip(ours, theirs, strict=False)]
        return [round(a / b, 4) for a, b in pairs if a is not None and b]

    found, tokens = ratios(value_of), ratios(per_token)
    result: Values = {"wanted": wanted, "rounds": found}
    if found:
        result |= {"median": round(median(found), 4), "upper_quartile": quartile(found, 3)}
        known = wanted is not None and len(found) >= rounds
        result |= {"reached": result["upper_quartile"] <= wanted if known else None}
    if tokens:
        result |= {"median_per_token": round(median(tokens), 4)}
    return result


def finalists(best: Best | None, runs: Runs) -> list[str]:
    """The settings that stay: the fastest of the first round."""
    settings = [engine for engine in best.settings if engine in runs] if best else []
    ran = [engine for engine in settings if middle(runs[engine][:1]) < float("inf")]
    return sorted(ran, key=lambda engine: middle(runs[engine][:1]))[:FINALISTS]


def against_best(case: Case, runs: Runs) -> Values:
    """`best`: ours against the setting with the least median of those that stayed; `usual`: as most people run it."""
    stayed = finalists(case.best, runs)
    if case.best is None or not stayed:
        return {}
    fastest = min(stayed, key=lambda engine: middle(runs[engine]))
    ratio = compared_with(runs[case.ours], runs[fastest], case.best.wanted, case.rounds)
    found: Values = {"best": {"engine": fastest, "later_rounds": stayed, **ratio}}
    if usual := runs.get(case.best.usual):
        # one round says nothing of a goal
        found |= {"usual": {"engine": case.best.usual, **compared_with(runs[case.ours][:1], usual[:1], None, 1)}}
    return found


def loss_gaps(ours: str, runs: Runs) -> dict[str, float]:
    """By engine, the greatest relative difference from our loss in a step of the first round."""
    mine = losses(runs[ours][0]) if runs[ours] else []
    found = {engine: losses(results[0]) for engine, results in runs.items() if engine != ours and results}
    return {
        engine: max(abs(a - b) / abs(a) for a, b in zip(mine, theirs, strict=True))
        for engine, theirs in found.items()
        if mine and len(mine) == len(theirs)
    }


def losses(run: Values) -> list[float]:
    """Of every step, the warm-up included; none where the method's loss is about what was sampled."""
    return run.get("losses", [])
