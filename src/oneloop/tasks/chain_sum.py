"""A sum in visible steps: `5+3-4=` is answered with its working and the result, `5+3=8,8-4=4;4`.

Every running total is one digit, so that a model of a few hundred thousand weights learns the task in a minute.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from oneloop.errors import ConfigError
from oneloop.tasks.task import Row, Split, draw_rows, graded

_STEP = r"[0-9]{1,3}[+-][0-9]{1,3}=[0-9]{1,3}"
_FORMAT = re.compile(rf"{_STEP}(?:,{_STEP})*;([0-9]{{1,3}})")
_TERM = re.compile(r"([+-])(\d)")


@dataclass(frozen=True)
class ChainSum:
    """Digits added to and taken from a running total that stays between 0 and `largest`.

    Args:
        steps: fewest and most steps of a prompt.
        largest: from 1 to 9, so that a total stays one digit.
        flawed: share of demonstrations with a flaw, as people's have: what preferences and rewards are there to mend.
    """

    steps: tuple[int, int] = (2, 4)
    largest: int = 5
    flawed: float = 0.0

    def __post_init__(self) -> None:
        fewest, most = self.steps
        if not 1 <= fewest <= most:
            raise ConfigError(f"ChainSum(steps={self.steps}): wanted fewest and most, such as (2, 4)")
        if not 1 <= self.largest <= 9:
            raise ConfigError(f"ChainSum(largest={self.largest}): wanted one digit from 1 to 9")
        if not 0 <= self.flawed <= 1:
            raise ConfigError(f"ChainSum(flawed={self.flawed}): wanted a share between 0 and 1")

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        return draw_rows(self._row, count, seed, split)

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        rng = Random(f"{seed}-{split}-flaws")
        return [
            row | {"completion": (_corrupted if rng.random() < self.flawed else _right)(row["prompt"], rng)}
            for row in self.prompts(count, seed, split)
        ]

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        rng = Random(f"{seed}-{split}-wrong")
        return [
            row | {"chosen": _working(row["prompt"]), "rejected": _corrupted(row["prompt"], rng)}
            for row in self.prompts(count, seed, split)
        ]

    def reward(self, completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
        """1 when the working has its format and the number after it is the answer."""
        return [graded(_stated(text), wanted) for text, wanted in zip(completions, answer, strict=True)]

    def format_reward(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """1 when the working has its format, whatever the numbers."""
        return [float(_stated(text) is not None) for text in completions]

    def _row(self, rng: Random) -> Row:
        total = rng.randint(0, self.largest)
        prompt = str(total)
        for _ in range(rng.randint(*self.steps)):
            after = rng.choice([digit for digit in range(self.largest + 1) if digit != total])
            prompt += f"{after - total:+d}"
            total = after
        return {"prompt": f"{prompt}=", "answer": str(total)}


def _working(prompt: str, slip: tuple[int, int] = (-1, 0)) -> str:
    """The steps and the result; `slip` is a step and the wrong total that it reaches, from which the rest goes on."""
    total, steps = int(prompt[0]), []
    for place, (sign, digit) in enumerate(_TERM.findall(prompt)):
        after = slip[1] if place == slip[0] else total + int(sign + digit)
        steps.append(f"{total}{sign}{digit}={after}")
        total = after
    return f"{','.join(steps)};{total}"


def _stated(text: str) -> str | None:
    """The result that a well-formed working states."""
    match = _FORMAT.fullmatch(text)
    return match.group(1) if match else None


def _right(prompt: str, rng: Random) -> str:
    return _working(prompt)


def _corrupted(prompt: str, rng: Random) -> str:
    """Working without a result, a guess without working, or a wrong total in one step that the rest carries on."""
    steps, _, answer = _working(prompt).partition(";")
    kind = rng.random()
    if kind < 0.45:
        return steps
    if kind < 0.8:
        return f";{rng.choice([n for n in range(10) if n != int(answer)])}"
    totals = [int(step.split("=")[1]) for step in steps.split(",")]
    place = rng.randrange(len(totals))
    # the error stays in every later total, and none of them may fall below 0
    least = min(totals[place:])
    errors = [error for error in (-3, -2, -1, 1, 2, 3) if least + error >= 0]
    return _working(prompt, (place, totals[place] + rng.choice(errors)))
