"""Flags over a recipe over the algorithm's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from oneloop.classic.presets import with_preset
from oneloop.cli.foreign import hint
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.methods import check_name
from oneloop.toml import read_recipe

T = TypeVar("T")


def parse_run(arguments: Sequence[str], usage: str, prog: str = "oneloop train") -> Run:
    """`ALGORITHM [--recipe R.toml] [--flag value …]` as a `Run`; tyro ends the process with 2 on a bad flag."""
    rest = list(arguments)
    refuse_foreign_words(rest)
    recipe = taken(rest, "--recipe")
    values = read_recipe(Path(recipe)) if recipe else {}
    named = rest[0] if rest and not rest[0].startswith("-") else None
    asks_help = any(word in ("-h", "--help") for word in rest)
    if named is None and "algorithm" not in values and not asks_help:
        raise ConfigError(f"which algorithm? {usage}. Algorithms: `oneloop explain` lists them")
    if named is not None and "algorithm" in values and values["algorithm"] != named:
        raise ConfigError(f"--recipe {recipe} is for {values['algorithm']!r}, the command says {named!r}")
    algorithm = named or str(values.get("algorithm", Run().algorithm))
    check_name(algorithm)
    if named is not None and len(rest) > 1 and not rest[1].startswith("-"):
        raise ConfigError(f"{rest[1]!r} after {named} belongs to no flag. {usage}")
    words = list(rest)
    env = taken(words, "--env") or str(values.get("env", ""))
    if env and not asks_help and prog != "oneloop train":
        raise ConfigError(f"--env {env}: {prog} is for language models. Fix: oneloop train {algorithm} --env {env}")
    run = parse(Run, rest, default=replace(default_run(algorithm, env), **values), prog=prog)
    return replace(run, set=with_preset(env, algorithm, run.set)) if env else run


def parse(kind: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """tyro over a frozen dataclass: a flag for every field.

    Raises: ConfigError for a flag that there is not, in one line, before tyro is asked.
    """
    refuse_foreign_words(arguments)
    refuse_unknown_flags(kind, arguments, prog)
    import tyro

    if default is None:
        return tyro.cli(kind, args=list(arguments), prog=prog)
    return tyro.cli(kind, args=list(arguments), prog=prog, default=default)


def refuse_foreign_words(arguments: Sequence[str]) -> None:
    """`section.name=value`, as verl is configured; ours come after --set, and none has a name of verl's."""
    for word in arguments:
        name, equals, value = word.lstrip("+-").partition("=")
        if equals and "." in name and (said := hint(name, value)):
            raise ConfigError(f"{word}: {said}")


def refuse_unknown_flags(kind: type[Any], arguments: Sequence[str], prog: str) -> None:
    """Raises: ConfigError naming what another library's flag is called here, or the nearest flag."""
    known, switches = {"help"}, {field.name.replace("_", "-") for field in fields(kind) if field.type in (bool, "bool")}
    for field in fields(kind):
        name = field.name.replace("_", "-")
        known |= {name, f"no-{name}"} if isinstance(field.default, bool) else {name}
    for place, word in enumerate(arguments):
        if not word.startswith("--"):
            continue
        flag, equals, value = word[2:].partition("=")
        if flag.replace("_", "-") in switches:
            _refuse_value(flag, equals, value, arguments[place + 1 :])
        if flag.replace("_", "-") in known:
            continue
        after = arguments[place + 1] if place + 1 < len(arguments) else "-"
        given = value if equals else (None if after.startswith("--") or after == "-" else after)
        near = get_close_matches(flag.replace("_", "-"), sorted(known), 1, 0.75)
        said = hint(flag, given)
        fix = f"--{said}" if said else f"Did you mean --{near[0]}?" if near else f"All of them: {prog} --help"
        raise ConfigError(f"there is no flag --{flag}. {fix}")


def _refuse_value(flag: str, equals: str, value: str, after: Sequence[str]) -> None:
    """Raises: ConfigError for a switch that was given a value, as other libraries write it: --bf16 True."""
    given = value if equals else after[0] if after and not after[0].startswith("-") else ""
    if given:
        off = given.lower() in ("false", "no", "off", "0")
        raise ConfigError(
            f"--{flag} is on by its name alone and takes no value; {given!r} was given. "
            f"Fix: --{'no-' if off else ''}{flag}"
        )


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
