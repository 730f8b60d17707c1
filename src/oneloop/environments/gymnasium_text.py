"""Gymnasium's environments whose observations and actions are texts, or numbers that have words, as messages.

gymnasium:FrozenLake-v1?is_slippery=false&actions=left,down,right,up
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from oneloop.errors import ConfigError
from oneloop.rewards.blame import described
from oneloop.types import Step

SCHEME = "gymnasium:"
_WORDS = ("observations", "actions")


class GymnasiumText:
    """One episode of a `gymnasium.Env`. What is no action is told to the policy as `error: ...`, and costs its turn.

    Args:
        env: whose spaces are Text or Discrete.
        observations, actions: what the numbers of Discrete spaces are called, from the first on. Left out, those that
            the environment has as `observation_words` and `action_words`, else digits.

    Raises: ConfigError for other spaces.
    """

    def __init__(self, env: Any, observations: Sequence[str] = (), actions: Sequence[str] = ()) -> None:
        self._env = env
        self._seen = _language(env, "observation", observations)
        self._done = _language(env, "action", actions)

    def reset(self, row: Mapping[str, Any], seed: int) -> Sequence[Mapping[str, Any]]:
        """From the row's `seed`, so that episodes of a group begin alike; without one, from the rollout's. The row is
        given as `options`.
        """
        begins = seed if row.get("seed") is None else int(row["seed"])
        observation, _ = self._env.reset(seed=begins, options=dict(row))
        return _asked(row["prompt"], self._seen.words(observation))

    def step(self, completion: str) -> Step:
        try:
            action = self._done.value(completion)
        except ValueError as error:
            return Step(messages=[_said(f"error: {error}")])
        observation, reward, terminated, truncated, info = self._env.step(action)
        return Step(
            messages=[_said(self._seen.words(observation))],
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            info=info,
        )

    def close(self) -> None:
        self._env.close()


class _Texts:
    """Of a Text space: they stand for themselves."""

    def __init__(self, space: Any) -> None:
        self._space = space

    def words(self, value: Any) -> str:
        return str(value)

    def value(self, text: str) -> str:
        """Raises: ValueError, in words that the policy is told."""
        if text not in self._space:
            signs = "".join(sorted(self._space.character_set))
            raise ValueError(f"wanted {self._space.min_length} to {self._space.max_length} characters of {signs!r}")
        return text


class _Named:
    """Of a Discrete space: a word for each number."""

    def __init__(self, first: int, words: Sequence[str]) -> None:
        self._first, self._words = first, words

    def words(self, value: Any) -> str:
        return self._words[int(value) - self._first]

    def value(self, text: str) -> int:
        """Of the last line, so that there can be thoughts before it. Raises: as that of texts."""
        word = text.strip().rpartition("\n")[2].strip()
        if word not in self._words:
            raise ValueError(f"wanted one of {', '.join(self._words)}")
        return self._first + self._words.index(word)


def _language(env: Any, kind: str, words: Sequence[str]) -> _Texts | _Named:
    from gymnasium.spaces import Discrete, Text  # noqa: PLC0415  an extra

    space = getattr(env, f"{kind}_space")
    name = type(env.unwrapped).__name__
    words = words or getattr(env.unwrapped, f"{kind}_words", ())
    if isinstance(space, Text):
        if words:
            raise ConfigError(f"{name}: its {kind} space is Text, whose texts need no words. Fix: leave them out")
        return _Texts(space)
    if not isinstance(space, Discrete):
        raise ConfigError(
            f"{name}: its {kind} space is {space}; a language model reads and says Text, or Discrete, whose numbers "
            "have words. Fix: a wrapper of the environment that says it in words"
        )
    count, first = int(space.n), int(space.start)
    words = tuple(map(str, words)) or tuple(str(first + place) for place in range(count))
    if len(words) != count or len(set(words)) < count:
        raise ConfigError(f"{name}: its {kind} space has {count} numbers; wanted as many words, all different: {words}")
    return _Named(first, words)


def _said(text: str) -> Mapping[str, Any]:
    return {"role": "user", "content": text}


def _asked(prompt: Any, seen: str) -> Sequence[Mapping[str, Any]]:
    """The row's prompt with the first observation behind it, as one message: some templates want the roles in turn."""
    before = [_said(prompt)] if isinstance(prompt, str) else [dict(message) for message in prompt]
    if not before or before[-1]["role"] != "user":
        return [*before, _said(seen)]
    return [*before[:-1], _said("\n".join(filter(None, (before[-1]["content"], seen))))]


# by name


def is_gymnasium(value: Any) -> bool:
    """Whether it is one of Gymnasium's environments, or a class of them: whoever made it has loaded gymnasium."""
    kind = getattr(sys.modules.get("gymnasium"), "Env", None)
    return kind is not None and (issubclass(value, kind) if isinstance(value, type) else isinstance(value, kind))


def perhaps_text(make: Callable[[], Any]) -> Any:
    """What `make` makes, as messages where it is one of Gymnasium's."""
    made = make()
    return GymnasiumText(made) if is_gymnasium(made) else made


def registered(spec: str, flag: str) -> tuple[str, Callable[[], Any]]:
    """The name and the maker of `gymnasium:ID`, with `?setting=value&...` for what `gymnasium.make` takes, and
    `observations=` and `actions=` with words, commas between them.

    Raises: ConfigError where gymnasium is not installed, knows no such environment, or cannot make it.
    """
    try:
        import gymnasium  # noqa: PLC0415  an extra
    except ImportError:
        raise ConfigError(f'{flag} {spec} needs gymnasium. Fix: pip install "oneloop[classic]"') from None
    ident, _, query = spec.removeprefix(SCHEME).partition("?")
    settings: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{flag} {spec}: {pair!r}; wanted setting=value, such as actions=left,right")
        settings[key] = text.split(",") if key in _WORDS else _value(text)
    words = {key: settings.pop(key) for key in _WORDS if key in settings}
    own, _, plain = ident.rpartition(":")
    if not own and plain not in gymnasium.registry:
        near = get_close_matches(plain, gymnasium.registry, 1, 0.0)
        hint = f"Did you mean {SCHEME}{near[0]}? " if near else ""
        raise ConfigError(f"{flag} {spec}: gymnasium has no {plain!r}. {hint}One of a module's own: {SCHEME}MODULE:ID")

    def make() -> Any:
        return GymnasiumText(gymnasium.make(ident, **settings), **words)

    tried(make, f"{flag} {spec}")
    return plain.rpartition("/")[2], make


def tried(make: Callable[[], Any], words: str) -> None:
    """Makes one and closes it. Raises: ConfigError for what cannot be played, in `words`."""
    try:
        made = make()
    except ConfigError as error:
        raise ConfigError(f"{words}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{words}: making it raised {described(error)}") from error
    try:
        made.close()
    except Exception as error:
        raise ConfigError(f"{words}: closing it raised {described(error)}") from error


def of_class(kind: Callable[[], Any], words: str) -> Callable[[], Any]:
    """Raises: ConfigError for spaces that are no texts, and for a constructor that raises."""
    make = partial(perhaps_text, kind)
    tried(make, words)
    return make


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
