"""A guessing game: `C-Q:`, `c-q:` or `40-54:` asks for a letter or a whole number, and each guess is answered with
`higher;` or `lower;`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from oneloop.environments.calls import wanted
from oneloop.types import Step

_KINDS = ("[A-Z]", "[a-z]", r"\d{1,6}")
"""Of what is asked for: guesses of another kind are none."""
_RANGE = re.compile("|".join(f"({kind})-({kind}):" for kind in _KINDS))


class Guess:
    """1 for the row's `answer` within as many guesses as halving the range takes at worst, else 0.

    Of n letters or numbers that is ⌊log₂ n⌋ + 1: whoever guesses in the middle always wins, whoever ignores the answers
    seldom.
    """

    def reset(self, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        asked = _RANGE.fullmatch(str(row["prompt"]))
        if asked is None:
            raise ValueError(f"the prompt is {row['prompt']!r}; wanted a range such as C-Q: or 40-54:")
        words = [word for word in asked.groups() if word]
        self._kind = next(kind for kind in _KINDS if re.fullmatch(kind, words[0]))
        least, most = map(place, words)
        self._secret, self._left = place(wanted(row)), (most - least + 1).bit_length()
        return [{"role": "user", "content": asked[0]}]

    def step(self, completion: str) -> Step:
        self._left -= 1
        said = completion.strip()
        guess = place(said) if re.fullmatch(self._kind, said) else None
        if guess == self._secret:
            return Step(messages=[_said("right;")], reward=1.0, terminated=True)
        word = "what?;" if guess is None else "higher;" if guess < self._secret else "lower;"
        return Step(messages=[_said(word)], terminated=self._left <= 0)


def place(word: str) -> int:
    """Of a letter in the alphabet, or the number itself."""
    return int(word) if word.isdigit() else ord(word)


def _said(word: str) -> Mapping[str, Any]:
    return {"role": "user", "content": word}
