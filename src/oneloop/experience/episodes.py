"""From requests to trajectories, and what a set of trajectories says on average: shared by training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from statistics import fmean

from oneloop.types import Completion, Prompt, Reward, StopReason, Trajectory


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to draw."""

    prompt: Prompt
    group: int
    sample: int
    seed: int


def trajectory(request: Request, completion: Completion, decode: Callable[[Sequence[int]], str]) -> Trajectory:
    """The episode of a request, not yet scored."""
    return Trajectory(
        prompt=request.prompt,
        group=request.group,
        sample=request.sample,
        completion=completion,
        text=decode(completion.tokens),
        reward=Reward(value=None),
    )


def reward_scalars(items: Sequence[Trajectory]) -> dict[str, float]:
    """Mean and standard deviation (ddof 0) of the reward and its parts, over what could be scored."""
    scored = [item.reward.value for item in items if item.reward.value is not None]
    scalars = {"rewards/unscored": float(len(items) - len(scored))}
    if scored:
        scalars = {"reward": fmean(scored), "reward_std": _std(scored), **scalars}
    scalars |= _logged(items)
    for name in dict.fromkeys(name for item in items for name in item.reward.parts):
        if failed := sum(name in item.reward.failures for item in items):
            scalars[f"rewards/{name}/failed"] = float(failed)
        parts = [part for item in items if (part := item.reward.parts.get(name)) is not None]
        if parts:
            scalars |= {f"rewards/{name}/mean": fmean(parts), f"rewards/{name}/std": _std(parts)}
    return scalars


def _logged(items: Sequence[Trajectory]) -> dict[str, float]:
    """What reward functions logged, over the samples that they logged it for."""
    found: dict[str, list[float]] = {}
    for item in items:
        for name, value in item.reward.measures.items():
            found.setdefault(f"rewards/{name}", []).append(value)
    return {name: fmean(values) for name, values in found.items()}


def _std(values: Sequence[float]) -> float:
    """With ddof 0. (`statistics.pstdev` adds fractions up exactly, which a step of short answers would feel.)"""
    mean = fmean(values)
    return hypot(*(value - mean for value in values)) / sqrt(len(values))


def length_scalars(items: Sequence[Trajectory]) -> dict[str, float]:
    """Lengths in tokens that the policy chose, whatever is trained on; the truncated share under TRL's name.

    Episodes whose environment failed have no length; of those alone there is nothing to say.
    """
    items = [item for item in items if item.completion.stop is not StopReason.ERROR]
    if not items:
        return {}
    lengths = [len(item.completion.actions) for item in items]
    ended = [length for item, length in zip(items, lengths, strict=True) if not item.completion.stop.truncated]
    scalars = {
        "completions/mean_length": fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": 1 - len(ended) / len(items),
    }
    if ended:
        scalars["completions/mean_terminated_length"] = fmean(ended)
        scalars["completions/max_terminated_length"] = float(max(ended))
    return scalars


def turn_scalars(items: Sequence[Trajectory]) -> dict[str, float]:
    """Of episodes: the policy's turns, and tokens that the environment said to it; of single answers nothing."""
    if not any(item.turns for item in items):
        return {}
    turns = [sum(turn.chosen for turn in item.turns) for item in items]
    given = sum(end - start for item in items for start, end in item.completion.given)
    return {"turns/mean": fmean(turns), "turns/max": float(max(turns)), "tokens/environment": float(given)}


def dead_scalars(groups: Sequence[Sequence[float | None]]) -> dict[str, float]:
    """Shares of groups whose rewards are all equal, unscored ones aside: under TRL's name, and by kind.

    All wrong: none is above 0. All right: each is above 0 and as high as any reward of the step.
    """
    best = max((value for group in groups for value in group if value is not None), default=0.0)
    kinds = [{value for value in group if value is not None} for group in groups]
    return {
        "frac_reward_zero_std": fmean(len(kind) <= 1 for kind in kinds),
        "frac_groups_all_wrong": fmean(len(kind) == 1 and max(kind) <= 0 for kind in kinds),
        "frac_groups_all_right": fmean(len(kind) == 1 and max(kind) == best > 0 for kind in kinds),
    }
