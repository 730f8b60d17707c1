"""Integer addition: `12+34=` is answered with `46`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from oneloop.errors import ConfigError
from oneloop.tasks.task import Row, Split, draw_rows, graded


@dataclass(frozen=True)
class Addition:
    """Two numbers of at most `digits` digits each."""

    digits: int = 2

    def __post_init__(self) -> None:
        if self.digits < 1:
            raise ConfigError(f"Addition(digits={self.digits}): wanted at least 1 digit")

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        return draw_rows(self._row, count, seed, split)

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        return [row | {"completion": row["answer"]} for row in self.prompts(count, seed, split)]

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        rng = Random(f"{seed}-{split}-wrong")
        return [
            row | {"chosen": row["answer"], "rejected": _wrong(int(row["answer"]), rng)}
            for row in self.prompts(count, seed, split)
        ]

    def reward(self, completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
        return [graded(text, wanted) for text, wanted in zip(completions, answer, strict=True)]

    def _row(self, rng: Random) -> Row:
        a, b = (rng.randrange(10 ** rng.randint(1, self.digits)) for _ in range(2))
        return {"prompt": f"{a}+{b}=", "answer": str(a + b)}


def _wrong(right: int, rng: Random) -> str:
    """A near miss: off by a little, or by ten as after a forgotten carry."""
    return str(rng.choice([n for n in (right - 10, right - 2, right - 1, right + 1, right + 2, right + 10) if n >= 0]))
