"""A search over a small text: `[bab]` is answered with the line about bab, and what is no call is the answer."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from oneloop.environments.calls import Consulted

NOTHING = "nothing;"


def found(query: str) -> str:
    """The line of the text that has most of the query's words, of equals the one that begins with one of them, and of
    those the first.
    """
    words = set(query.lower().split())
    every = [(len(words & known), first in words, -number) for number, (first, known) in enumerate(_index())]
    best = max(every)
    return f"{text()[-best[2]]};" if best[0] else NOTHING


@cache
def text() -> tuple[str, ...]:
    """`lookup.txt`: a line for each of 300 made-up animals, such as `bab hue black home nest pal gib`."""
    lines = (Path(__file__).with_name("lookup.txt")).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line)


@cache
def _index() -> tuple[tuple[str, frozenset[str]], ...]:
    """Of each line its first word, and all of them."""
    return tuple((line.split()[0], frozenset(line.split())) for line in text())


Lookup = partial(Consulted, "lookup", found)
