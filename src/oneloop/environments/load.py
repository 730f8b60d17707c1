"""Environments by name: one that comes with oneloop, `file.py:Class`, `package.module:Class`, or one of another
package, `gymnasium:ID` or `verifiers:ID`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from types import FunctionType
from typing import Any

from oneloop.environments import gymnasium_text, verifiers
from oneloop.errors import ConfigError
from oneloop.rewards.load import found, split_spec

BUILT_IN = {"calculator": "Calculator", "guess": "Guess", "lookup": "Lookup"}
"""Classes by name, each in the module of that name."""
METHODS = ("reset", "step")
FLAG = "--environment"


@dataclass(frozen=True)
class NamedEnvironment:
    """What makes environments, and the name that their rewards are logged under."""

    name: str
    make: Callable[[], Any]
    """One for each rollout."""
    close: Callable[[], Any] | None = None
    """Ends what they have in common, when no more are played; it may be async."""


def load_environment(spec: str) -> NamedEnvironment:
    """Import it into this process.

    Raises: ConfigError that names the part of `spec` that is wrong.
    """
    if spec.endswith(".py"):
        raise ConfigError(f"{FLAG} {spec}: that is a file; wanted a class in it. Fix: {FLAG} {spec}:Class")
    if ":" not in spec:
        if spec not in BUILT_IN:
            near = get_close_matches(spec, BUILT_IN, 1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"{FLAG} {spec}: {hint}Those that come with oneloop are {', '.join(BUILT_IN)}; your own is named "
                "file.py:Class or package.module:Class, and there are gymnasium:ID and verifiers:ID"
            )
        return NamedEnvironment(spec, getattr(import_module(f"oneloop.environments.{spec}"), BUILT_IN[spec]))
    if spec.startswith(verifiers.SCHEME):
        from oneloop.environments.verifiers.loaded import loaded  # noqa: PLC0415  an extra, and slow to load

        of = loaded(spec, FLAG)
        return NamedEnvironment(of.name, of.make, of.close)
    if spec.startswith(gymnasium_text.SCHEME):
        return NamedEnvironment(*gymnasium_text.registered(spec, FLAG))
    _, name = split_spec(spec, FLAG, "Class")
    return environment_of(found(spec, FLAG, "Class"), name, f"{FLAG} {spec}")


def environment_of(make: Any, name: str, words: str) -> NamedEnvironment:
    """Of a class, a function that makes environments, or an `Env` of verifiers.

    Args:
        words: how it was named, for messages.

    Raises: ConfigError for anything else.
    """
    if verifiers.is_verifiers(make):
        from oneloop.environments.verifiers.loaded import Loaded  # noqa: PLC0415  an extra

        of = Loaded(make)
        return NamedEnvironment(of.name, of.make, of.close)
    if not callable(make):
        raise ConfigError(f"{words}: {name} is a {type(make).__name__}; wanted a class, or a function that makes")
    if gymnasium_text.is_gymnasium(make):
        return NamedEnvironment(name, gymnasium_text.of_class(make, words))
    if isinstance(make, type):
        lacks = [method for method in METHODS if not callable(getattr(make, method, None))]
        if lacks:
            raise ConfigError(
                f"{words}: {name} has no method {lacks[0]!r}. Fix: def reset(self, row) and def step(self, "
                "completion), as docs/environments.md says"
            )
        _check_signatures(make, name, words)
        return NamedEnvironment(name, make)
    return NamedEnvironment(name, partial(gymnasium_text.perhaps_text, make))


def _check_signatures(kind: type, name: str, words: str) -> None:
    """Raises: ConfigError for a class that cannot be made, or begun, by what a run gives it."""
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise ConfigError(
            f"{words}: {name} is made without arguments: {error}. Fix: defaults for them, or a function that makes one"
        ) from error
    except ValueError:  # some compiled classes do not tell
        return
    reset = inspect.getattr_static(kind, "reset")
    if not isinstance(reset, FunctionType):
        return
    signature = inspect.signature(reset)
    seed = {"seed": 0} if "seed" in signature.parameters else {}
    try:
        signature.bind(None, {}, **seed)
    except TypeError as error:
        raise ConfigError(
            f"{words}: {name}.reset is given the row: {error}. Fix: def reset(self, row), or reset(self, row, seed)"
        ) from error
