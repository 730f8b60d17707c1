"""Every reward function behind one contract: as many values as completions, each a finite number or None."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Complex, Real
from typing import Any

from oneloop.errors import ConfigError, RewardError
from oneloop.rewards.blame import described
from oneloop.rewards.load import NamedReward
from oneloop.types import Reward, Trajectory

_GIVEN = ("completions", "prompts", "completion_ids", "prompt_ids")
_NO_VALUES = (str, bytes, bytearray, memoryview, Mapping, Set)
"""float() takes some of these, and all can be walked through, yet none holds a value per completion in order."""


@dataclass(frozen=True)
class RewardScorer:
    """Implements `oneloop.ports.Scorer`: the weighted sum of some reward functions.

    A part that is None does not count in the sum; a sample whose parts are all None could not be scored.

    Raises: RewardError when a function raises or breaks the contract. A failure never becomes a reward.
    """

    rewards: tuple[NamedReward, ...]

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ConfigError("no reward was named. Fix: --reward file.py:function")
        twice = [name for name, count in Counter(reward.name for reward in self.rewards).items() if count > 1]
        if twice:
            raise ConfigError(
                f"--reward: two functions are named {twice[0]!r}, and values are logged by name. Fix: rename one"
            )

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        if not trajectories:
            return []
        columns = {reward.name: _values(reward, trajectories) for reward in self.rewards}
        rows = [{name: values[place] for name, values in columns.items()} for place in range(len(trajectories))]
        return [
            replace(item, reward=Reward(value=self._total(place, parts), parts=parts))
            for place, (item, parts) in enumerate(zip(trajectories, rows, strict=True))
        ]

    def _total(self, place: int, parts: Mapping[str, float | None]) -> float | None:
        weighted = [reward.weight * value for reward in self.rewards if (value := parts[reward.name]) is not None]
        total = sum(weighted) if weighted else None
        if total is not None and not isfinite(total):
            raise RewardError(
                f"the weighted sum of rewards is {total} at index {place} ({dict(parts)}); wanted a finite number. "
                "Fix: smaller --reward-weights"
            )
        return total


def _values(reward: NamedReward, items: Sequence[Trajectory]) -> list[float | None]:
    arguments = _taken(reward, _arguments(items))
    try:
        returned = _called(reward.function, arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and a cancelled task too: only the user stops a run
        raise RewardError(f"reward {reward.name} raised {described(error)}") from error
    count = _length(returned)
    if count is None:
        raise RewardError(
            f"reward {reward.name} returned {_short(returned)} of type {type(returned).__name__}; "
            "wanted list[float | None], one per completion"
        )
    if count != len(items):
        raise RewardError(
            f"reward {reward.name} returned {count} values for {len(items)} completions; "
            "wanted one per completion, None where a sample cannot be scored"
        )
    return [_number(reward.name, place, value) for place, value in enumerate(returned)]


def _arguments(items: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """What a reward function may ask for, in lists of its own; data columns first, so that none can shadow
    a completion.
    """
    names = dict.fromkeys(name for item in items for name in item.prompt.columns if name != "prompt")
    return {name: [item.prompt.columns.get(name) for item in items] for name in names} | {
        "completions": [item.text for item in items],
        "prompts": [item.prompt.text for item in items],
        "completion_ids": [list(item.completion.tokens) for item in items],
        "prompt_ids": [list(item.prompt.tokens) for item in items],
    }


def _taken(reward: NamedReward, arguments: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The arguments that the function names, or all of them if it takes any."""
    taken = reward.parameters
    if taken is None:
        return arguments
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for name, parameter in taken.items():
        if parameter.kind in by_name and parameter.default is parameter.empty and name not in arguments:
            columns = [column for column in arguments if column not in _GIVEN]
            raise RewardError(
                f"reward {reward.name} wants {name!r}, but the data has the columns {columns}. "
                f"Fix: add {name!r} to every row, or give the parameter a default"
            )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in taken}


def _called(function: Callable[..., Any], arguments: dict[str, list[Any]]) -> Any:
    returned = function(**arguments)
    if not inspect.isawaitable(returned):
        return returned
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(returned))
    # asyncio.run refuses to start where a loop is already running, as in a notebook: a thread of its own
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _awaited(returned)).result()


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _length(returned: Any) -> int | None:
    if isinstance(returned, _NO_VALUES):
        return None
    try:
        return len(returned)
    except TypeError:  # a number, a generator, an array without dimensions
        return None


def _number(name: str, place: int, value: Any) -> float | None:
    if value is None:
        return None
    number = _real(value)
    if number is None or not isfinite(number):
        raise RewardError(
            f"reward {name} returned {_short(value)} of type {type(value).__name__} at index {place}; "
            "wanted a finite number, or None where the sample cannot be scored"
        )
    return number


def _real(value: Any) -> float | None:
    """None for what is not one real number: text, arrays, and complex numbers, of which float() may drop a half."""
    if not isinstance(value, (float, int)):  # what most are, and cheaper to ask for than the abstract types below
        is_complex = issubclass(type(value), Complex) and not issubclass(type(value), Real)
        if is_complex or isinstance(value, _NO_VALUES) or (getattr(value, "shape", ()) or ()):
            return None
    try:
        return float(value)
    except Exception:
        return None


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return "something without a repr"
    return text if len(text) <= 60 else f"{text[:57]}..."
