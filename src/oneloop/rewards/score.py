"""Every reward function behind one contract: as many values as completions, each a finite number or None."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from oneloop.errors import RewardError
from oneloop.rewards.load import NamedReward, described
from oneloop.types import Reward, Trajectory


@dataclass(frozen=True)
class RewardScorer:
    """Implements `oneloop.ports.Scorer`: the weighted sum of some reward functions.

    A part that is None does not count in the sum; a sample whose parts are all None could not be scored.

    Raises: RewardError when a function raises or breaks the contract. A failure never becomes a reward.
    """

    rewards: tuple[NamedReward, ...]

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        if not trajectories:
            return []
        arguments = _arguments(trajectories)
        columns = {reward.name: _values(reward, arguments, len(trajectories)) for reward in self.rewards}
        weights = {reward.name: reward.weight for reward in self.rewards}
        rows = [{name: values[place] for name, values in columns.items()} for place in range(len(trajectories))]
        return [
            replace(item, reward=Reward(value=_total(parts, weights), parts=parts))
            for item, parts in zip(trajectories, rows, strict=True)
        ]


def _total(parts: dict[str, float | None], weights: dict[str, float]) -> float | None:
    scored = [weights[name] * value for name, value in parts.items() if value is not None]
    return sum(scored) if scored else None


def _arguments(items: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """What a reward function may ask for; data columns first, so that none can shadow a completion."""
    names = dict.fromkeys(name for item in items for name in item.prompt.columns)
    return {name: [item.prompt.columns.get(name) for item in items] for name in names} | {
        "completions": [item.text for item in items],
        "prompts": [item.prompt.text for item in items],
        "completion_ids": [list(item.completion.tokens) for item in items],
        "prompt_ids": [list(item.prompt.tokens) for item in items],
    }


def _values(reward: NamedReward, arguments: dict[str, list[Any]], count: int) -> list[float | None]:
    try:
        returned = _called(reward.function, arguments)
    except (Exception, SystemExit) as error:
        raise RewardError(f"reward {reward.name} raised {described(error)}") from error
    if isinstance(returned, (str, bytes, dict)) or not hasattr(returned, "__len__"):
        raise RewardError(
            f"reward {reward.name} returned {_short(returned)} of type {type(returned).__name__}; "
            "wanted list[float | None], one per completion"
        )
    if len(returned) != count:
        raise RewardError(
            f"reward {reward.name} returned {len(returned)} values for {count} completions; "
            "wanted one per completion, None where a sample cannot be scored"
        )
    return [_number(reward.name, place, value) for place, value in enumerate(returned)]


def _called(function: Any, arguments: dict[str, list[Any]]) -> Any:
    taken = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        arguments = {name: value for name, value in arguments.items() if name in taken}
    returned = function(**arguments)
    if not inspect.isawaitable(returned):
        return returned
    # a thread of its own: asyncio.run refuses to start where a loop is already running
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _awaited(returned)).result()


async def _awaited(value: Any) -> Any:
    return await value


def _number(name: str, place: int, value: Any) -> float | None:
    if value is None:
        return None
    scalar = not isinstance(value, (str, bytes, complex)) and not (getattr(value, "shape", ()) or ())
    try:
        number = float(value) if scalar else None  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = None
    if number is None or not isfinite(number):
        raise RewardError(
            f"reward {name} returned {_short(value)} of type {type(value).__name__} at index {place}; "
            "wanted a finite number, or None where the sample cannot be scored"
        )
    return number


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
