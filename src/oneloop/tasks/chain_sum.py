"""A sum in visible steps: `3+8+5=` is answered with its working and the result, `3+8=11,11+5=16;16`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from oneloop.tasks.task import Row, Split, draw_rows

_STEP = r"\d{1,3}\+\d{1,3}=\d{1,3}"
_FORMAT = re.compile(rf"{_STEP}(?:,{_STEP})*;(\d{{1,3}})")


@dataclass(frozen=True)
class ChainSum:
    """Single digits added one after another.

    Args:
        terms: fewest and most digits of a prompt.
    """

    terms: tuple[int, int] = (3, 4)

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        return draw_rows(self._row, count, seed, split)

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        return [row | {"completion": _working(_digits(row))} for row in self.prompts(count, seed, split)]

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        rng = Random(f"{seed}-{split}-wrong")
        return [
            row | {"chosen": _working(_digits(row)), "rejected": _corrupted(_digits(row), rng)}
            for row in self.prompts(count, seed, split)
        ]

    def reward(self, completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
        """1 when the working has its format and the number after it is the answer."""
        return [float(_stated(text) == wanted) for text, wanted in zip(completions, answer, strict=True)]

    def format_reward(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """1 when the working has its format, whatever the numbers."""
        return [float(_stated(text) is not None) for text in completions]

    def _row(self, rng: Random) -> Row:
        digits = [rng.randrange(10) for _ in range(rng.randint(*self.terms))]
        return {"prompt": "+".join(map(str, digits)) + "=", "answer": str(sum(digits))}


def _digits(row: Row) -> list[int]:
    return [int(digit) for digit in row["prompt"].rstrip("=").split("+")]


def _working(digits: Sequence[int], slip: tuple[int, int] = (-1, 0)) -> str:
    """The steps and the result; `slip` adds an error to one step, which the later ones carry on."""
    total, steps = digits[0], []
    for place, digit in enumerate(digits[1:]):
        after = total + digit + (slip[1] if place == slip[0] else 0)
        steps.append(f"{total}+{digit}={after}")
        total = after
    return f"{','.join(steps)};{total}"


def _stated(text: str) -> str | None:
    """The result that a well-formed working states."""
    match = _FORMAT.fullmatch(text)
    return match.group(1) if match else None


def _corrupted(digits: Sequence[int], rng: Random) -> str:
    """A wrong sum in one step (mostly), a wrong result after right steps, or a missing result."""
    right = _working(digits)
    kind = rng.random()
    if kind < 0.7:
        place = rng.randrange(len(digits) - 1)
        reached = sum(digits[: place + 2])
        error = rng.choice([e for e in (-3, -2, -1, 1, 2, 3) if reached + e >= 0])
        return _working(digits, (place, error))
    if kind < 0.9:
        error = rng.choice([e for e in (-2, -1, 1, 2) if sum(digits) + e >= 0])
        return f"{right.split(';')[0]};{sum(digits) + error}"
    return right.split(";")[0]
