"""`40-54:` is answered with guesses, until one is right or there are no more."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from oneloop.environments.guess import Guess
from oneloop.tasks.played import Played
from oneloop.tasks.task import Row

WIDTH = 15
"""Numbers in a range: four guesses."""


def row(rng: Random) -> Row:
    least = rng.randint(10, 99 - WIDTH + 1)
    return {"prompt": f"{least}-{least + WIDTH - 1}:", "answer": str(rng.randint(least, least + WIDTH - 1))}


def move(row: Row, messages: Sequence[dict[str, str]], rng: Random) -> str:
    """Any number that can still be it: who always takes the middle one wins, and this one often does not."""
    least, most = map(int, messages[0]["content"].rstrip(":").split("-"))
    for said, answer in zip(messages[1::2], messages[2::2], strict=True):
        guess = int(said["content"])
        least, most = (guess + 1, most) if answer["content"] == "higher;" else (least, guess - 1)
    return str(rng.randint(least, most))


GUESS = Played("guess", Guess, row, move)
