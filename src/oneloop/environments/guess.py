"""A guessing game: `40-54:` asks for a whole number, and each guess is answered with `higher;` or `lower;`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from oneloop.environments.calls import wanted
from oneloop.types import Step

_RANGE = re.compile(r"(\d{1,6})-(\d{1,6}):")
_GUESS = re.compile(r"\s*(\d{1,6})\s*")


class Guess:
    """1 for the row's `answer` within as many guesses as halving the range takes at worst, else 0.

    Of n numbers that is ⌊log₂ n⌋ + 1: whoever guesses in the middle always wins, whoever ignores the answers seldom.
    """

    def reset(self, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        asked = _RANGE.fullmatch(str(row["prompt"]))
        if asked is None:
            raise ValueError(f"the prompt is {row['prompt']!r}; wanted a range such as 40-54:")
        self._secret, self._left = int(wanted(row)), (int(asked[2]) - int(asked[1]) + 1).bit_length()
        return [{"role": "user", "content": asked[0]}]

    def step(self, completion: str) -> Step:
        self._left -= 1
        guess = _GUESS.fullmatch(completion)
        if guess is not None and int(guess[1]) == self._secret:
            return Step(messages=[_said("right;")], reward=1.0, terminated=True)
        word = "no number;" if guess is None else "higher;" if int(guess[1]) < self._secret else "lower;"
        return Step(messages=[_said(word)], terminated=self._left <= 0)


def _said(word: str) -> Mapping[str, Any]:
    return {"role": "user", "content": word}
