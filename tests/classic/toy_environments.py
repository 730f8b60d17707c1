"""Environments whose every number can be told in advance."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Corridor(gymnasium.Env):
    """Shows the length of the episode, drawn from its seed, and the steps so far. The reward is 1 + steps/10.

    Ends after `length` steps; an episode that has drawn a multiple of 4 does not end by itself.
    """

    observation_space = Box(0, 100, (2,), np.float32)
    action_space = Discrete(3)
    calls: list[tuple[int, int]] = []  # noqa: RUF012  # of all of them: length and steps before each step

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.length, self.taken = int(self.np_random.integers(2, 9)), 0
        return self._shown(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.calls.append((self.length, self.taken))
        reward = 1 + self.taken / 10
        self.taken += 1
        return self._shown(), reward, self.taken >= self.length and self.length % 4 > 0, False, {}

    def _shown(self) -> np.ndarray:
        return np.array([self.length, self.taken], dtype=np.float32)


class Vector(Corridor):
    """Takes two numbers between −1 and 1, and keeps them."""

    action_space = Box(-1, 1, (2,), np.float32)
    given: list[np.ndarray] = []  # noqa: RUF012

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.given.append(np.array(action))
        return super().step(action)


class Restless(Corridor):
    """Draws from a stream that no seed sets."""

    stream = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.length = int(self.stream.integers(50, 90))
        return self._shown(), {}


class Broken(Corridor):
    """Gives a reward that is no number."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        shown, _, *rest = super().step(action)
        return shown, float("nan"), *rest


class Endless(Corridor):
    """Does not end."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        shown, reward, *_ = super().step(action)
        return shown, reward, False, False, {}


class Blind(Corridor):
    """Shows what is no number."""

    def _shown(self) -> np.ndarray:
        return super()._shown() * (np.nan if self.taken == 1 else 1)


class Torn(Corridor):
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("no licence")


class Asleep(Corridor):
    """Does not begin."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        raise ValueError("no display")


class Stuck(Corridor):
    """Does not go on."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        raise KeyError("motor")


class Mixed(Corridor):
    """Shows a dictionary."""

    observation_space = gymnasium.spaces.Dict({"speed": Box(-1, 1, (2,), np.float32), "gear": Discrete(3)})


class Pictures(Corridor):
    """Shows pictures."""

    observation_space = Box(0, 255, (8, 8, 3), np.uint8)


for kind in (Corridor, Vector, Restless, Broken, Blind, Torn, Asleep, Stuck, Mixed, Pictures):
    if f"{kind.__name__}-v0" not in gymnasium.registry:
        gymnasium.register(f"{kind.__name__}-v0", entry_point=kind, max_episode_steps=10)
if "Endless-v0" not in gymnasium.registry:
    gymnasium.register("Endless-v0", entry_point=Endless)
