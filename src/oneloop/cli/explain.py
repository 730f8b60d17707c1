"""`oneloop explain [ALGORITHM | RECIPE.toml] [--set piece=value …]`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from oneloop.config import default_run, read_recipe
from oneloop.errors import ConfigError

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
    print(explain(algorithm_of(arguments[0], _changes(arguments[1:]))))
    return 0


def algorithm_of(word: str, changes: list[str]):
    """The value of a name or of a recipe."""
    from oneloop.recipes.overrides import named_algorithm, overridden
    from oneloop.recipes.resolve import resolved

    if not word.endswith(".toml"):
        return overridden(named_algorithm(word), changes)
    values = read_recipe(Path(word))
    if "algorithm" not in values:
        raise ConfigError(f'{word} names no algorithm. Fix: a line such as algorithm = "grpo"')
    run = replace(default_run(values["algorithm"]), **values)
    return resolved(replace(run, set=(*run.set, *changes)))


def _changes(words: list[str]) -> list[str]:
    if words and words[0] != "--set":
        raise ConfigError(f"explain does not know {words[0]!r}.\n{USAGE}")
    return words[1:]
