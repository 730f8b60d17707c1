"""Countdown: `3,5,7>22:` asks for 22 from 3, 5 and 7, and is answered with working and an expression,
`3*5=15,15+7=22;3*5+7`.

There are many right answers to a prompt and no way to look one up: whoever learns it learns to search.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

from oneloop.arithmetic import Expression, Leaf, Node, evaluated, numbers_in, parsed
from oneloop.errors import ConfigError
from oneloop.tasks.task import Row, Split, draw_rows

_STEP = r"[0-9]{1,5}[-+*/][0-9]{1,5}=[0-9]{1,5}"
_FORMAT = re.compile(rf"{_STEP}(?:,{_STEP}){{0,15}};([-+*/()0-9]{{1,100}})")


@dataclass(frozen=True)
class Countdown:
    """Reach a target with +, −, × and ÷ from numbers, each used exactly once.

    Args:
        count: fewest and most numbers of a prompt.
        largest: of the numbers.
        most: largest target and intermediate result; all of them are positive whole numbers.
    """

    count: tuple[int, int] = (3, 4)
    largest: int = 9
    most: int = 99

    def __post_init__(self) -> None:
        fewest, most = self.count
        if not 2 <= fewest <= most <= 6:
            raise ConfigError(f"Countdown(count={self.count}): wanted fewest and most numbers from 2 to 6, as (3, 4)")
        if not 2 <= self.largest <= self.most <= 9999:
            raise ConfigError(f"Countdown(largest={self.largest}, most={self.most}): wanted 2 ≤ largest ≤ most ≤ 9999")

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        return [_public(row) for row in self._rows(count, seed, split)]

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        return [_public(row) | {"completion": _working(row["solution"])} for row in self._rows(count, seed, split)]

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        rng = Random(f"{seed}-{split}-wrong")
        return [
            _public(row) | {"chosen": _working(row["solution"]), "rejected": self._wrong(row, rng)}
            for row in self._rows(count, seed, split)
        ]

    def reward(
        self, completions: Sequence[str], answer: Sequence[Any], numbers: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """1 when the working has its format and the expression after it reaches the target with every number once."""
        return [
            None if target is None or given is None else float(_reaches(text, str(target).strip(), given))
            for text, target, given in zip(completions, answer, numbers, strict=True)
        ]

    def format_reward(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """1 when the working has its format, whatever the numbers."""
        return [float(_FORMAT.fullmatch(text) is not None) for text in completions]

    def _rows(self, count: int, seed: int, split: Split) -> list[Row]:
        return draw_rows(self._row, count, seed, split)

    def _row(self, rng: Random) -> Row:
        numbers = [rng.randint(1, self.largest) for _ in range(rng.randint(*self.count))]
        solution = self._combined([Leaf(number) for number in numbers], rng)
        target = str(evaluated(solution))
        prompt = f"{','.join(str(number) for number in numbers)}>{target}:"
        return {"prompt": prompt, "answer": target, "numbers": numbers, "solution": solution}

    def _combined(self, parts: list[Expression], rng: Random) -> Expression:
        """The parts joined two by two, in any order, by operations whose results stay within bounds.

        One always does: of two different numbers a difference, of two equal ones the quotient.
        """
        while len(parts) > 1:
            rng.shuffle(parts)
            *rest, left, right = parts
            joined = [Node(sign, left, right) for sign in "+-*/"] + [Node("-", right, left)]
            parts = [*rest, rng.choice([node for node in joined if self._fits(evaluated(node))])]
        return parts[0]

    def _fits(self, value: Fraction | None) -> bool:
        return value is not None and value.denominator == 1 and 0 < value <= self.most

    def _wrong(self, row: Row, rng: Random) -> str:
        """Working without an expression, or an expression that misses: another operation, or a number left out."""
        while True:
            steps, _, expression = _working(row["solution"]).partition(";")
            kind = rng.random()
            if kind < 0.3:
                return steps
            if kind < 0.7:
                place = rng.choice([index for index, sign in enumerate(expression) if sign in "+-*/"])
                expression = expression[:place] + rng.choice("+-*/") + expression[place + 1 :]
            else:
                expression = str(Leaf(rng.choice(row["numbers"])))
            text = f"{steps};{expression}"
            if not _reaches(text, row["answer"], row["numbers"]):
                return text


def _public(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "solution"}


def _working(solution: Expression) -> str:
    """Each operation with its result, the inner ones first, and the whole expression."""
    steps: list[str] = []

    def walk(part: Expression) -> None:
        if isinstance(part, Node):
            walk(part.left)
            walk(part.right)
            steps.append(f"{evaluated(part.left)}{part.sign}{evaluated(part.right)}={evaluated(part)}")

    walk(solution)
    return f"{','.join(steps)};{solution}"


def _reaches(text: str, target: str, numbers: Sequence[int]) -> bool:
    match = _FORMAT.fullmatch(text)
    expression = parsed(match.group(1)) if match else None
    if expression is None or sorted(numbers_in(expression)) != sorted(int(number) for number in numbers):
        return False
    value = evaluated(expression)
    return value is not None and str(value) == target
