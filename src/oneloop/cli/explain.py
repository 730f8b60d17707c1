"""`oneloop explain [ALGORITHM | RECIPE.toml] [--set piece=value …]`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.toml import read_recipe

USAGE = """usage: oneloop explain                                   the algorithms
       oneloop explain ALGORITHM [--set piece=value ...]  its exact objective
       oneloop explain RECIPE.toml                        the objective that a recipe will run
       oneloop explain CODE                               what an alert such as A_DEAD means, and what to do"""


def main(arguments: list[str]) -> int:
    if any(word in ("-h", "--help") for word in arguments):
        print(USAGE)
        return 0
    if arguments and arguments[0].startswith(("A_", "I_")):
        from oneloop.health import described

        print(described(arguments[0]))
        return 0
    from oneloop.recipes.explain import SOURCES, explain

    if not arguments:
        print("\n".join(f"{name:<14}{source.title}" for name, source in SOURCES.items()))
        return 0
    from oneloop.recipes.resolve import sampler

    word, changes = arguments[0], _changes(arguments[1:])
    print(explain(algorithm_of(word, changes), sampler(run_of(word)) if word.endswith(".toml") else ""))
    return 0


def algorithm_of(word: str, changes: list[str]):
    """The value of a name or of a recipe."""
    from oneloop.recipes.overrides import named_algorithm, overridden
    from oneloop.recipes.resolve import resolved

    if not word.endswith(".toml"):
        return overridden(named_algorithm(word), changes)
    run = run_of(word)
    return resolved(replace(run, set=(*run.set, *changes)))


def run_of(recipe: str) -> Run:
    values = read_recipe(Path(recipe))
    if "algorithm" not in values:
        raise ConfigError(f'{recipe} names no algorithm. Fix: a line such as algorithm = "grpo"')
    return replace(default_run(values["algorithm"], values.get("env", "")), **values)


def _changes(words: list[str]) -> list[str]:
    if words and words[0] != "--set":
        raise ConfigError(f"explain does not know {words[0]!r}.\n{USAGE}")
    return words[1:]
