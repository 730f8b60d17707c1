"""`C-Q:` is answered with letters, until one is right or there are no more guesses."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from string import ascii_uppercase as LETTERS

from oneloop.environments.guess import Guess
from oneloop.tasks.played import Played
from oneloop.tasks.task import Row

WIDTHS = (8, 15)
"""Fewest and most letters of a range: four guesses."""
COUNTS_UP = 0.7
"""Share of games in which the letters are tried one by one from the lowest on, whatever there would be to learn from
the answers: what there is to unlearn."""


def row(rng: Random) -> Row:
    width = rng.randint(*WIDTHS)
    least = rng.randint(0, len(LETTERS) - width)
    asked = LETTERS[least : least + width]
    return {"prompt": f"{asked[0]}-{asked[-1]}:", "answer": rng.choice(asked)}


def move(row: Row, messages: Sequence[dict[str, str]], rng: Random) -> str:
    """Who counts up stays with it. The others take one of the middle half of the letters that can still be it; who
    always takes the middle one wins.
    """
    least, last = [LETTERS.index(letter) for letter in messages[0]["content"].rstrip(":").split("-")]
    for said, answer in zip(messages[1::2], messages[2::2], strict=True):
        guess = LETTERS.index(said["content"])
        least, last = (guess + 1, last) if answer["content"] == "higher;" else (least, guess - 1)
    first = messages[0]["content"][0]
    if messages[1]["content"] == first if len(messages) > 1 else rng.random() < COUNTS_UP:
        return LETTERS[least]
    off = (last - least) // 4
    return LETTERS[rng.randint(least + off, last - off)]


GUESS = Played("guess", Guess, row, move)
