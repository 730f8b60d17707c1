"""Gymnasium's vectorised environments, every episode of which starts from a seed of its own.

An environment cannot be saved in general, but it can be replayed: what an episode is follows from its seed and the
actions taken in it. That is what a checkpoint keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from traceback import extract_tb
from typing import Any, NamedTuple

import numpy as np

from oneloop.classic.episodes import Played
from oneloop.classic.spaces import Spaces, spaces_of
from oneloop.errors import ConfigError, EnvironmentFailed
from oneloop.seeds import named_seed

LONGEST = 10_000
"""Steps after which an episode is cut where its environment has no limit: a policy may walk into a wall for ever."""


class Step(NamedTuple):
    """What a step of all environments gave. An episode that is terminated is not truncated."""

    observations: np.ndarray
    """[N, D], after the actions; where an episode ended, its last one."""
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ended: tuple[Played, ...] = ()


class Environments:
    """Some environments of one kind, side by side; one whose episode ended begins the next at once.

    Args:
        stream: with the seed, the environment and the number of the episode, it names each episode's seed.
    """

    def __init__(self, env: str, count: int, seed: int, stream: str) -> None:
        self.env, self._seed, self._stream = env, seed, stream
        self._vector = made(env, count)
        self.spaces = _spaces(self._vector, env)
        self.count = count
        self._episodes = [0] * count
        self._taken: list[list[Any]] = [[] for _ in range(count)]
        self.observations = self._reset(np.ones(count, dtype=bool))

    def step(self, actions: np.ndarray) -> Step:
        """One action each. `observations` is then what the next actions are chosen in.

        Raises: EnvironmentFailed for one that raises, and for a reward or an observation that is no finite number.
        """
        given = self.spaces.taken(actions)
        for taken, action in zip(self._taken, given.tolist(), strict=True):
            taken.append(action)
        with _named(self.env, "step"):
            seen, rewards, terminated, cut, _ = self._vector.step(given)
        if not np.isfinite(rewards).all():
            odd = rewards[~np.isfinite(rewards)][0]
            raise EnvironmentFailed(f"--env {self.env} gave the reward {odd}. Fix: in the environment, a finite number")
        after = self._seen(seen)
        ended = terminated | cut
        if not ended.any():
            self.observations = after
            return Step(after, rewards, terminated, cut)
        played = tuple(self._played(place, bool(terminated[place])) for place in ended.nonzero()[0].tolist())
        self.observations = self._begun(ended)
        return Step(after, rewards, terminated, cut & ~terminated, played)

    def begin(self) -> None:
        """The next episode of all, whatever is running."""
        self.observations = self._begun(np.ones(self.count, dtype=bool))

    def lengths(self) -> np.ndarray:
        """Steps of each running episode so far."""
        return np.array([len(taken) for taken in self._taken])

    def close(self) -> None:
        self._vector.close()

    def state(self) -> dict[str, Any]:
        return {
            "episodes": list(self._episodes),
            "actions": [list(taken) for taken in self._taken],
            "observations": self.observations.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> list[int]:
        """Replay the episodes that were running; returns the environments whose episode came out otherwise.

        They begin their next episode: an environment that does not follow its seed cannot be gone on with.
        """
        self._episodes = [int(number) for number in state["episodes"]]
        self._taken = [list(taken) for taken in state["actions"]]
        then = np.array(state["observations"])
        self.observations = self._replayed()
        other = (self.observations != then).any(1)
        if other.any():
            self.observations = self._begun(other)
        return other.nonzero()[0].tolist()

    def _replayed(self) -> np.ndarray:
        """All episodes end up where they were at the same time: a shorter one begins later."""
        lengths = self.lengths()
        longest = int(lengths.max())
        starts, done = longest - lengths, np.zeros(self.count, dtype=bool)
        seen: Any = None
        for t in range(longest):
            if (fresh := (starts == t) | done | (t == 0)).any():
                self._reset(fresh)
            # before its beginning, an environment that has to be stepped goes along with anything
            given = [
                taken[t - start] if t >= start else self._anything()
                for taken, start in zip(self._taken, starts, strict=True)
            ]
            actions = np.array(given, dtype=self._vector.action_space.dtype)
            with _named(self.env, "step"):
                seen, _, terminated, truncated, _ = self._vector.step(actions)
            done = terminated | truncated
        last = starts == longest
        return self._reset(last) if last.any() else self.spaces.observed(seen).copy()

    def _anything(self) -> Any:
        if self.spaces.choices:
            return self.spaces.first[1]
        return self.spaces.taken(np.zeros((1, self.spaces.numbers), np.float32))[0].tolist()

    def _played(self, place: int, terminated: bool) -> Played:
        return Played(place, self._episodes[place], self._seed_of(place), self._taken[place], terminated)

    def _seed_of(self, place: int) -> int:
        return named_seed(self._seed, self._stream, place, self._episodes[place])

    def _begun(self, ended: np.ndarray) -> np.ndarray:
        """The next episode of those."""
        for place in ended.nonzero()[0]:
            self._episodes[place] += 1
            self._taken[place] = []
        return self._reset(ended)

    def _reset(self, which: np.ndarray) -> np.ndarray:
        seeds = [self._seed_of(place) if chosen else None for place, chosen in enumerate(which)]
        with _named(self.env, "reset"):
            seen, _ = self._vector.reset(seed=seeds, options={"reset_mask": which})
        return self._seen(seen)

    def _seen(self, given: Any) -> np.ndarray:
        seen = self.spaces.observed(given).copy()
        if not np.isfinite(seen).all():
            odd = seen[~np.isfinite(seen)][0]
            raise EnvironmentFailed(f"--env {self.env} showed {odd}. Fix: in the environment, finite numbers")
        return seen


def made(env: str, count: int) -> Any:
    """Gymnasium's vector of `count` environments that begin an episode only when they are told to.

    Raises: ConfigError for a name that there is not, and for an environment that needs what is not installed.
    """
    try:
        import gymnasium  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigError(f'--env {env} needs gymnasium. Fix: pip install "oneloop[classic]"') from error
    try:
        limit = [partial(gymnasium.wrappers.TimeLimit, max_episode_steps=LONGEST)] if endless(env) else None
        return gymnasium.make_vec(
            env,
            count,
            vectorization_mode="sync",
            # a step that only resets is no transition, and nobody may be trained on one
            vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED, "copy": False},
            wrappers=limit,
            disable_env_checker=True,
        )
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError(f"--env {env}: {error}") from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        near = get_close_matches(env, list(gymnasium.registry), 3, 0.6)
        hint = f"Did you mean {' or '.join(near)}?" if near else "Fix: a name that is registered, or module:NAME"
        raise ConfigError(f"--env {env}: {str(error).strip().rstrip('.?')}. {hint}") from error
    except Exception as error:
        raise ConfigError(_told(env, "its constructor", error)) from error


@contextmanager
def _named(env: str, call: str) -> Iterator[None]:
    """Raises: EnvironmentFailed in the place of whatever an environment raises."""
    try:
        yield
    except Exception as error:
        raise EnvironmentFailed(_told(env, call, error)) from error


def _told(env: str, call: str, error: Exception) -> str:
    last = extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error}"
    return f"--env {env} failed in {call} ({last.filename}:{last.lineno}): {what}. Fix: in the environment"


def spaces_in(env: str) -> Spaces:
    """What an environment shows and takes.

    Raises: ConfigError as `made`, and for spaces that no policy here has.
    """
    vector = made(env, 1)
    try:
        return _spaces(vector, env)
    finally:
        vector.close()


def _spaces(vector: Any, env: str) -> Spaces:
    return spaces_of(vector.single_observation_space, vector.single_action_space, env)


def endless(env: str) -> bool:
    """Whether it has no time limit. Raises: what Gymnasium raises for a name that there is not."""
    import gymnasium  # noqa: PLC0415  # an extra

    module, _, name = env.rpartition(":")
    if module:
        import_module(module)
    return gymnasium.spec(name).max_episode_steps is None
