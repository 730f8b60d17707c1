"""Rows of a file or a task as prompts, demonstrations or pairs of token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar

from oneloop.errors import DataError
from oneloop.experience.pairs import Pair
from oneloop.experience.ratings import Rated
from oneloop.model.text import Text
from oneloop.types import Prompt, Tokens

Item = TypeVar("Item")


@dataclass(frozen=True)
class Dropped:
    """Rows that do not fit the model's context: counted and named, never silent."""

    rows: tuple[int, ...]
    total: int
    reason: str

    def __str__(self) -> str:
        named = ", ".join(str(row) for row in self.rows[:5]) + (", …" if len(self.rows) > 5 else "")
        return f"{len(self.rows)} of {self.total} rows dropped (row {named}): {self.reason}"


def prompts(
    rows: Sequence[dict[str, Any]], text: Text, context: int | None, max_new_tokens: int
) -> tuple[list[Prompt], Dropped | None]:
    def build(number: int, row: dict[str, Any]) -> tuple[Prompt, int]:
        tokens, shown = text.prompt(row["prompt"], row.get("tools"))
        columns = {name: value for name, value in row.items() if name != "prompt"}
        messages = None if isinstance(row["prompt"], str) else tuple(row["prompt"])
        prompt = Prompt(id=str(number), text=shown, tokens=tokens, columns=columns, messages=messages)
        return prompt, len(tokens) + max_new_tokens

    return _fitting(rows, build, context, f"prompt and max_new_tokens={max_new_tokens}")


def demonstrations(
    rows: Sequence[dict[str, Any]], text: Text, context: int | None
) -> tuple[list[Tokens], Dropped | None]:
    def build(number: int, row: dict[str, Any]) -> tuple[list[Tokens], int]:
        turns = text.demonstrations(row)
        return turns, max(len(turn.ids) for turn in turns)

    kept, dropped = _fitting(rows, build, context, "prompt and completion")
    # `Text.notes` says how many have nothing to train on
    trained = [turn for turns in kept for turn in turns if any(turn.trained)]
    if not trained:
        raise DataError(f"none of the {len(rows)} rows has a word of the assistant: nothing would be trained")
    return trained, dropped


def pairs(
    rows: Sequence[dict[str, Any]], text: Text, context: int | None, *, margins: bool = False
) -> tuple[list[Pair], Dropped | None]:
    """`margins`: read the column `margin`, which is in all rows or in none."""
    margins = margins and any("margin" in row for row in rows)

    def build(number: int, row: dict[str, Any]) -> tuple[Pair, int]:
        tokens, (chosen, rejected) = text.answers(row, ("chosen", "rejected"))
        margin = _margin(number, row) if margins else 0.0
        return Pair(tokens, chosen, rejected, margin=margin), len(tokens) + max(len(chosen), len(rejected))

    return _fitting(rows, build, context, "prompt and answer")


def _margin(number: int, row: dict[str, Any]) -> float:
    value = row.get("margin")
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise DataError(
            f"row {number + 1}: margin is {value!r}; wanted a number in every row, by which the score of the chosen "
            "answer should lead. Fix: fill it in, or leave the column out"
        )
    return float(value)


def unpaired(rows: Sequence[dict[str, Any]], text: Text, context: int | None) -> tuple[list[Rated], Dropped | None]:
    def build(number: int, row: dict[str, Any]) -> tuple[Rated, int]:
        tokens, (completion,) = text.answers(row, ("completion",))
        return Rated(tokens, completion, row["label"]), len(tokens) + len(completion)

    return _fitting(rows, build, context, "prompt and completion")


def _fitting(
    rows: Sequence[dict[str, Any]],
    build: Callable[[int, dict[str, Any]], tuple[Item, int]],
    context: int | None,
    what: str,
) -> tuple[list[Item], Dropped | None]:
    built = [_named(build, number, row) for number, row in enumerate(rows)]
    long = tuple(
        number for number, (_, length) in enumerate(built, start=1) if context is not None and length > context
    )
    reason = f"{what} exceed the model's context of {context} tokens"
    if len(long) == len(rows):
        raise DataError(f"all {len(rows)} rows are too long: {reason}. Fix: shorter rows or --max-new-tokens")
    kept = [item for number, (item, _) in enumerate(built, start=1) if number not in set(long)]
    return kept, Dropped(long, len(rows), reason) if long else None


def _named(
    build: Callable[[int, dict[str, Any]], tuple[Item, int]], number: int, row: dict[str, Any]
) -> tuple[Item, int]:
    try:
        return build(number, row)
    except DataError as error:
        raise DataError(f"row {number + 1}: {error}") from error
