"""Expressions of whole numbers with + − × ÷ and parentheses, read by a parser of our own: text of a model is never
given to Python to evaluate.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

LONGEST, DEEPEST = 256, 20
"""Characters of an expression that is read, and parentheses inside one another: the parser calls itself for each."""
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True, slots=True)
class Leaf:
    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Node:
    sign: str
    left: Expression
    right: Expression

    def __str__(self) -> str:
        """With the parentheses that it needs, and no others."""
        # a−(b−c) and a÷(b×c) keep theirs
        left, right = _wrapped(self.left, _RANK[self.sign]), _wrapped(self.right, _RANK[self.sign] + 1)
        return f"{left}{self.sign}{right}"


Expression: TypeAlias = Leaf | Node


def parsed(text: str) -> Expression | None:
    """The expression, or None where the text is none: a sign alone, a name, an open parenthesis."""
    if len(text) > LONGEST or _TOKEN.sub("", text):
        return None
    reader = _Reader(_TOKEN.findall(text))
    found = reader.sum()
    return found if reader.at_end else None


def evaluated(expression: Expression) -> Fraction | None:
    """Its exact value; None where it divides by 0."""
    if isinstance(expression, Leaf):
        return Fraction(expression.value)
    left, right = evaluated(expression.left), evaluated(expression.right)
    if left is None or right is None or (expression.sign == "/" and right == 0):
        return None
    return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[expression.sign](right)


def numbers_in(expression: Expression) -> list[int]:
    """Every number that stands in it, from left to right."""
    if isinstance(expression, Leaf):
        return [expression.value]
    return numbers_in(expression.left) + numbers_in(expression.right)


def _wrapped(part: Expression, rank: int) -> str:
    return f"({part})" if isinstance(part, Node) and _RANK[part.sign] < rank else str(part)


class _Reader:
    """sum = product (± product)*;  product = atom (×÷ atom)*;  atom = number | ( sum )."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._place, self._depth = tokens, 0, 0

    @property
    def at_end(self) -> bool:
        return self._place == len(self._tokens)

    def sum(self) -> Expression | None:
        return self._chain("+-", self._product)

    def _product(self) -> Expression | None:
        return self._chain("*/", self._atom)

    def _chain(self, signs: str, part: Callable[[], Expression | None]) -> Expression | None:
        found = part()
        while found is not None and (sign := self._taken(signs)):
            after = part()
            found = None if after is None else Node(sign, found, after)
        return found

    def _atom(self) -> Expression | None:
        if self._depth < DEEPEST and self._taken("("):
            self._depth += 1
            inside = self.sum()
            self._depth -= 1
            return inside if self._taken(")") else None
        if not self.at_end and self._tokens[self._place].isdigit():
            self._place += 1
            return Leaf(int(self._tokens[self._place - 1]))
        return None

    def _taken(self, signs: str) -> str:
        """The next token if it is one of the signs, else ""."""
        if self.at_end or self._tokens[self._place] not in signs:
            return ""
        self._place += 1
        return self._tokens[self._place - 1]
