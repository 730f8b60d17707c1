"""`37*46+12=` is answered with a call of the calculator, `[37*46+12]`, and with the value that comes back."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from oneloop.environments.calculator import Calculator, value_of
from oneloop.tasks.played import Played
from oneloop.tasks.task import Row

FROM_MEMORY = 0.5
"""Share of demonstrations that answer without the calculator, and wrong: what there is to unlearn."""


def row(rng: Random) -> Row:
    a, b, c = rng.randint(11, 99), rng.randint(11, 99), rng.randint(1, 99)
    expression = rng.choice([f"{a}*{b}{rng.choice('+-')}{c}", f"{c}{rng.choice('+-')}{a}*{b}"])
    return {"prompt": f"{expression}=", "answer": value_of(expression)}


def move(row: Row, messages: Sequence[dict[str, str]], rng: Random) -> str:
    if len(messages) > 1:
        return messages[-1]["content"].rstrip(";")
    if rng.random() < FROM_MEMORY:
        return str(rng.randint(100, 9999))
    return f"[{row['prompt'].rstrip('=')}]"


CALCULATOR = Played("calculator", Calculator, row, move)
