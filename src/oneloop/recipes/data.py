"""Rows of a file or a task as prompts, demonstrations or pairs of token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from oneloop.errors import DataError
from oneloop.experience.demonstrations import Demonstration
from oneloop.experience.pairs import Pair
from oneloop.model.text import Text
from oneloop.types import Prompt

Kind = Literal["prompts", "demonstrations", "preferences"]
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
        tokens, shown = text.prompt(row["prompt"])
        columns = {name: value for name, value in row.items() if name != "prompt"}
        messages = None if isinstance(row["prompt"], str) else tuple(row["prompt"])
        prompt = Prompt(id=str(number), text=shown, tokens=tokens, columns=columns, messages=messages)
        return prompt, len(tokens) + max_new_tokens

    return _fitting(rows, build, context, f"prompt and max_new_tokens={max_new_tokens}")


def demonstrations(
    rows: Sequence[dict[str, Any]], text: Text, context: int | None
) -> tuple[list[Demonstration], Dropped | None]:
    def build(number: int, row: dict[str, Any]) -> tuple[Demonstration, int]:
        tokens, completion = text.prompt(row["prompt"])[0], text.completion(row["completion"], row["prompt"])
        return Demonstration(tokens, completion), len(tokens) + len(completion)

    return _fitting(rows, build, context, "prompt and completion")


def pairs(rows: Sequence[dict[str, Any]], text: Text, context: int | None) -> tuple[list[Pair], Dropped | None]:
    def build(number: int, row: dict[str, Any]) -> tuple[Pair, int]:
        tokens = text.prompt(row["prompt"])[0]
        chosen, rejected = (text.completion(row[name], row["prompt"]) for name in ("chosen", "rejected"))
        return Pair(tokens, chosen, rejected), len(tokens) + max(len(chosen), len(rejected))

    return _fitting(rows, build, context, "prompt and answer")


def _fitting(
    rows: Sequence[dict[str, Any]],
    build: Callable[[int, dict[str, Any]], tuple[Item, int]],
    context: int | None,
    what: str,
) -> tuple[list[Item], Dropped | None]:
    built = [build(number, row) for number, row in enumerate(rows)]
    long = tuple(
        number for number, (_, length) in enumerate(built, start=1) if context is not None and length > context
    )
    reason = f"{what} exceed the model's context of {context} tokens"
    if len(long) == len(rows):
        raise DataError(f"all {len(rows)} rows are too long: {reason}. Fix: shorter rows or --max-new-tokens")
    kept = [item for number, (item, _) in enumerate(built, start=1) if number not in set(long)]
    return kept, Dropped(long, len(rows), reason) if long else None
