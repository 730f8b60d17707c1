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

ONE_BY_ONE = 0.7
"""Share of guesses that try the lowest letter there is, which the answer `higher;` says little about: what there is to
unlearn."""


def row(rng: Random) -> Row:
    width = rng.randint(*WIDTHS)
    least = rng.randint(0, len(LETTERS) - width)
    asked = LETTERS[least : least + width]
    return {"prompt": f"{asked[0]}-{asked[-1]}:", "answer": rng.choice(asked)}


def move(row: Row, messages: Sequence[dict[str, str]], rng: Random) -> str:
    """A letter that can still be it: who always takes the middle one wins, and this one often does not."""
    least, most = (LETTERS.index(letter) for letter in messages[0]["content"].rstrip(":").split("-"))
    for said, answer in zip(messages[1::2], messages[2::2], strict=True):
        guess = LETTERS.index(said["content"])
        least, most = (guess + 1, most) if answer["content"] == "higher;" else (least, guess - 1)
    return LETTERS[least if rng.random() < ONE_BY_ONE else rng.randint(least, most)]


GUESS = Played("guess", Guess, row, move)
