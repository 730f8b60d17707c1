"""The route that lays runs side by side, and says what that proves."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from oneloop.lab.answers import Refusal
from oneloop.lab.source import Source
from oneloop.lab.tables import SHORT
from oneloop.record.statistics import difference_interval

MOST, STEPS, PROMPTS = 4, 10, 50
"""Runs at once; the newest common steps whose completions are compared; prompts that are shown."""
ENOUGH = 3
"""Seeds of a method, below which a difference says nothing about the method."""
OF_REWARDS = ("reward", "reward_weights", "reward_model", "data")
"""Settings that say what a reward is: where they differ, so does what a number of it means."""
NOT_SETTINGS = ("out", "seed", "resume", "report_to", "overwrite")


def compare(runs: Sequence[tuple[str, Source]], metric: str) -> dict[str, Any]:
    """Differing settings, the difference of the first two runs on the prompts that both answered, and their words."""
    if not 2 <= len(runs) <= MOST:
        raise Refusal(400, f"{len(runs)} runs; wanted 2 to {MOST}", "/api/compare?runs=A,B")
    lines = {key: source.line() for key, source in runs}
    details = [source.details() for _, source in runs]
    settings = [{row["name"]: row["value"] for row in detail.config} for detail in details]
    names = dict.fromkeys(name for each in settings for name in each)
    values = {name: [each.get(name) for each in settings] for name in names}
    differing = [{"name": name, "values": found} for name, found in values.items() if len(set(found)) > 1]
    seeds = {key: line.seed for key, line in lines.items()}
    tables = [_by_prompt(source, _common_steps([source for _, source in runs])) for _, source in runs]
    return {
        "configs": differing,
        "evaluation": None if _other_rewards(differing) else _difference(tables[0], tables[1], metric or "reward"),
        "prompts": _prompts(tables),
        "seeds": seeds,
        "words": _words(differing, [line.algorithm for line in lines.values()], list(seeds.values())),
    }


def _words(
    differing: Sequence[dict[str, Any]], algorithms: Sequence[str | None], seeds: Sequence[int | None]
) -> list[str]:
    own = [row for row in differing if row["name"] not in NOT_SETTINGS]
    methods: dict[tuple[Any, ...], set[int | None]] = {}
    for place, (algorithm, seed) in enumerate(zip(algorithms, seeds, strict=True)):
        methods.setdefault((algorithm, *(row["values"][place] for row in own)), set()).add(seed)
    if len(methods) == 1:
        return ["only the seed or nothing differs: what is seen is chance"]
    fewest = min(map(len, methods.values()))
    seen = "one seed" if fewest == 1 else f"{fewest} seeds"
    words = []
    if fewest < ENOUGH:
        words.append(f"{seen}: no evidence of a better method. Three seeds or more of each, with everything else equal")
    if other := _other_rewards(own):
        words.append(f"their rewards are not the same ({', '.join(other)}): their means cannot be compared")
    if len(own) > 1:
        names = ", ".join(row["name"] for row in own[:6])
        words.append(f"{len(own)} settings differ ({names}): what made the difference cannot be told")
    return words


def _other_rewards(differing: Sequence[dict[str, Any]]) -> list[str]:
    """Settings in which the first two runs mean other things by a reward."""
    return [row["name"] for row in differing if row["name"] in OF_REWARDS and row["values"][0] != row["values"][1]]


def _common_steps(sources: Sequence[Source]) -> list[int]:
    """The newest steps whose completions every run has."""
    common = set.intersection(*(set(source.steps("rollouts")) for source in sources))
    return sorted(common)[-STEPS:]


def _by_prompt(source: Source, steps: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Completions by prompt, over those steps."""
    wanted = ["prompt", "completion", "reward", "advantage", "group", "sample", "length", "stop"]
    found: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        try:
            table = source.table("rollouts", step, wanted)
        except (KeyError, OSError, ValueError):
            continue
        for place, row in enumerate(table.to_pylist()):
            found.setdefault(row["prompt"], []).append({**row, "step": step, "row": place})
    return found


def _difference(a: dict[str, Any], b: dict[str, Any], metric: str) -> dict[str, Any] | None:
    """Mean of B minus mean of A, prompt by prompt; None where no prompt has rewards in both."""
    shared = [(prompt, _rewards(a[prompt]), _rewards(b[prompt])) for prompt in a if prompt in b]
    pairs = [(prompt, first, second) for prompt, first, second in shared if first and second]
    if metric != "reward" or len(pairs) < 2:
        return None
    differences = [fmean(second) - fmean(first) for _, first, second in pairs]
    shares = {value for _, first, second in pairs for value in (*first, *second)} <= {0.0, 1.0}
    low, high = difference_interval(differences, [prompt for prompt, _, _ in pairs], shares=shares)
    apart = "0 is inside: these prompts do not tell the two apart" if low <= 0 <= high else "0 is outside"
    return {
        "metric": "reward",
        "pairs": len(pairs),
        "difference": fmean(differences),
        "low": low,
        "high": high,
        "words": f"second minus first, on the prompts that both were trained on in their last common steps; {apart}. "
        "These are training prompts: only held-out ones say which model is better",
    }


def _rewards(rows: Sequence[dict[str, Any]]) -> list[float]:
    return [row["reward"] for row in rows if row["reward"] is not None and isfinite(row["reward"])]


def _prompts(tables: Sequence[dict[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Prompts that the first run and another answered, the newest first, with the last completion of each run."""
    shared = [prompt for prompt in reversed(tables[0]) if any(prompt in other for other in tables[1:])]
    return [
        {"prompt": prompt[:SHORT], "rows": [_short(table[prompt][-1]) if prompt in table else None for table in tables]}
        for prompt in shared[:PROMPTS]
    ]


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "prompt": row["prompt"][:SHORT], "completion": row["completion"][:SHORT]}
