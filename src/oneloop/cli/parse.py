"""Flags over a recipe over the algorithm's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from oneloop.config import DEFAULTS, Run, default_run, read_recipe
from oneloop.errors import ConfigError

T = TypeVar("T")


def parse_run(arguments: Sequence[str], usage: str, prog: str = "oneloop train") -> Run:
    """`ALGORITHM [--recipe R.toml] [--flag value …]` as a `Run`; tyro ends the process with 2 on a bad flag."""
    rest = list(arguments)
    recipe = taken(rest, "--recipe")
    values = read_recipe(Path(recipe)) if recipe else {}
    named = rest[0] if rest and not rest[0].startswith("-") else None
    asks_help = any(word in ("-h", "--help") for word in rest)
    if named is None and "algorithm" not in values and not asks_help:
        raise ConfigError(f"which algorithm? {usage}. Algorithms: `oneloop explain` lists them")
    if named is not None and "algorithm" in values and values["algorithm"] != named:
        raise ConfigError(f"--recipe {recipe} is for {values['algorithm']!r}, the command says {named!r}")
    algorithm = named or str(values.get("algorithm", Run().algorithm))
    if algorithm not in DEFAULTS:
        from oneloop.recipes.overrides import named_algorithm

        named_algorithm(algorithm)
    default = replace(default_run(algorithm), **values)
    return parse(Run, rest, default=default, prog=prog)


def parse(kind: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """tyro over a frozen dataclass: a flag for every field."""
    import tyro

    if default is None:
        return tyro.cli(kind, args=list(arguments), prog=prog)
    return tyro.cli(kind, args=list(arguments), prog=prog, default=default)


def taken(arguments: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from the arguments; returns the value."""
    for place, word in enumerate(arguments):
        if word == flag:
            if place + 1 == len(arguments):
                raise ConfigError(f"{flag} needs a value, such as {flag} recipe.toml")
            value = arguments[place + 1]
            del arguments[place : place + 2]
            return value
        if word.startswith(f"{flag}="):
            del arguments[place]
            return word.split("=", 1)[1]
    return None
