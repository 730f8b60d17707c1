"""`bab pal home?` asks where the friend of bab lives: `[bab]` and `[gib]` are looked up, then comes the answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from oneloop.environments.lookup import Lookup, text
from oneloop.tasks.played import Played
from oneloop.tasks.task import Row

FRIEND, FIELDS = "pal", ("hue", "home")
FROM_MEMORY = 0.4
"""Share of answers that are given without looking up, and mostly wrong."""


def row(rng: Random) -> Row:
    animal, field = rng.choice(text()).split()[0], rng.choice(FIELDS)
    hops = [FRIEND] * rng.randint(0, 1)
    about = animal
    for hop in hops:
        about = read(_about()[about], hop)
    return {"prompt": f"{' '.join([animal, *hops, field])}?", "answer": read(_about()[about], field)}


@cache
def _about() -> dict[str, str]:
    """The line of each animal, which is what a search for it finds."""
    return {line.split()[0]: line for line in text()}


def read(line: str, field: str) -> str:
    """What a line says of a field."""
    words = line.rstrip(";").split()
    return words[words.index(field) + 1]


def move(row: Row, messages: Sequence[dict[str, str]], rng: Random) -> str:
    animal, *hops, field = row["prompt"].rstrip("?").split()
    looked = len(messages) // 2
    if rng.random() < FROM_MEMORY / (len(hops) + 1) and looked <= len(hops):
        return read(rng.choice(text()), field)
    if looked == 0:
        return f"[{animal}]"
    if looked <= len(hops):
        return f"[{read(messages[-1]['content'], hops[looked - 1])}]"
    return read(messages[-1]["content"], field)


LOOKUP = Played("lookup", Lookup, row, move)
