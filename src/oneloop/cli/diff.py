"""`oneloop diff A B`."""

from __future__ import annotations

from oneloop.errors import ConfigError

USAGE = "usage: oneloop diff A B    what B deletes from or changes in A (names or recipes)"


def main(arguments: list[str]) -> int:
    if any(word in ("-h", "--help") for word in arguments):
        print(USAGE)
        return 0
    if len(arguments) != 2:
        raise ConfigError(f"diff takes two algorithms, got {len(arguments)}.\n{USAGE}")
    from oneloop.cli.explain import algorithm_of
    from oneloop.recipes.explain import differences

    old, new = (algorithm_of(word, []) for word in arguments)
    lines = differences(old, new) or ["the same pieces with the same constants"]
    print("\n".join([f"from {old.name} to {new.name}:", *(f"  {line}" for line in lines)]))
    return 0
