"""Rows as prompts, demonstrations or pairs of token ids, and what becomes of those that are too long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from typing import Any, Generic, Literal, TypeVar

from transformers import PreTrainedTokenizerBase

from oneloop.data import Kind, Row, Rows
from oneloop.errors import DataError
from oneloop.experience.pairs import Pair
from oneloop.experience.ratings import Rated
from oneloop.model.chat import NO_TEMPLATE
from oneloop.model.text import Text
from oneloop.recipes.stored import Stored
from oneloop.types import Prompt, Tokens

Item = TypeVar("Item")
Ids = tuple[int, ...]
LongPrompts = Literal["error", "skip", "truncate-left"]


NAMED = 5
"""Rows that are named; the others are counted."""


@dataclass
class Places:
    """Rows to which one thing happened: how many, and where the first of them stand."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(place)

    def __str__(self) -> str:
        return ", ".join(self.first) + (", …" if self.count > len(self.first) else "")


@dataclass(frozen=True)
class TooLong:
    """Rows beyond the limit that were left out or cut: counted and named, never silent."""

    skipped: Places
    truncated: Places
    total: int
    reason: str

    def __str__(self) -> str:
        said = [(self.skipped, "skipped"), (self.truncated, "cut at the left of the prompt")]
        parts = [f"{rows.count} of {self.total} rows {how} ({rows})" for rows, how in said if rows.count]
        return f"{', '.join(parts)}: {self.reason}"


@dataclass(frozen=True)
class Part(Generic[Item]):
    """One item before it is known to fit.

    Args:
        prompt: the tokens that may be cut, at their left.
        rest: how many tokens come after them.
        make: the item, from the prompt's tokens.
    """

    prompt: Ids
    rest: int
    make: Callable[[Ids], Item]


def check_template(rows: Sequence[Row], kind: Kind, tokenizer: PreTrainedTokenizerBase) -> None:
    """What encoding would find too, but after the weights are loaded.

    Raises: DataError for the first row of messages where there is no chat template.
    """
    if getattr(tokenizer, "chat_template", None) is not None:
        return
    for number, row in enumerate(rows):
        names = ("messages", "text", "prompt") if kind == "demonstrations" else ("prompt",)
        if not isinstance(next(row[name] for name in names if name in row), str):
            raise DataError(f"{place(rows, number)}: {NO_TEMPLATE}")


def _stored_prompts() -> Stored[Prompt]:
    def read(value: list[Any]) -> Prompt:
        number, text, tokens, columns, messages = value
        kept = None if messages is None else tuple(messages)
        return Prompt(id=number, text=text, tokens=tuple(tokens), columns=columns, messages=kept)

    return Stored(lambda item: [item.id, item.text, item.tokens, item.columns, item.messages], read)


def _stored_turns() -> Stored[Tokens]:
    def read(value: list[list[int]]) -> Tokens:
        return Tokens(tuple(value[0]), tuple(map(bool, value[1])))

    return Stored(lambda item: [item.ids, list(map(int, item.trained))], read)


def _stored_pairs() -> Stored[Pair]:
    def read(value: list[Any]) -> Pair:
        return _pair(*map(tuple, value[:3]), margin=value[3])

    return Stored(lambda item: [item.prompt, item.chosen, item.rejected, item.margin], read)


def _stored_rated() -> Stored[Rated]:
    def read(value: list[Any]) -> Rated:
        return Rated(tuple(value[0]), tuple(value[1]), value[2])

    return Stored(lambda item: [item.prompt, item.completion, item.good], read)


def prompts(
    rows: Sequence[Row], text: Text, context: int | None, max_new_tokens: int, long: LongPrompts = "error"
) -> tuple[Stored[Prompt], TooLong | None]:
    def build(number: int, row: Row) -> list[Part[Prompt]]:
        tokens, shown = text.prompt(row["prompt"], row.get("tools"))
        columns = {name: value for name, value in row.items() if name != "prompt"}
        messages = None if isinstance(row["prompt"], str) else tuple(row["prompt"])

        def make(kept: Ids) -> Prompt:
            seen = shown if kept == tokens else str(text.tokenizer.decode(list(kept)))
            return Prompt(id=str(number), text=seen, tokens=kept, columns=columns, messages=messages)

        return [Part(tokens, max_new_tokens, make)]

    return _fitting(
        _stored_prompts(), rows, ("prompt",), build, text, context, long, f"prompt and max_new_tokens={max_new_tokens}"
    )


def demonstrations(
    rows: Sequence[Row], text: Text, context: int | None, long: LongPrompts = "error"
) -> tuple[Stored[Tokens], TooLong | None]:
    def build(number: int, row: Row) -> list[Part[Tokens]]:
        # `Text.notes` says how many have nothing to train on
        return [_turn(turn) for turn in text.demonstrations(row) if any(turn.trained)]

    columns = ("messages", "text", "prompt", "completion")
    kept, found = _fitting(_stored_turns(), rows, columns, build, text, context, long, "prompt and completion")
    if not kept:
        raise DataError(
            f"none of the {len(rows)} rows has a word of the assistant: nothing would be trained. "
            "Fix: conversations in which the assistant answers a user"
        )
    return kept, found


def _turn(turn: Tokens) -> Part[Tokens]:
    first = turn.trained.index(True)

    def make(kept: Ids) -> Tokens:
        return Tokens((*kept, *turn.ids[first:]), (*(False,) * len(kept), *turn.trained[first:]))

    return Part(turn.ids[:first], len(turn.ids) - first, make)


def pairs(
    rows: Sequence[Row], text: Text, context: int | None, long: LongPrompts = "error", *, margins: bool = False
) -> tuple[Stored[Pair], TooLong | None]:
    """`margins`: read the column `margin`, which is in all rows or in none."""
    margins = margins and any("margin" in row for row in rows)

    def build(number: int, row: Row) -> list[Part[Pair]]:
        tokens, (chosen, rejected) = text.answers(row, ("chosen", "rejected"))
        margin = _margin(row) if margins else 0.0
        make = partial(_pair, chosen=chosen, rejected=rejected, margin=margin)
        return [Part(tokens, max(len(chosen), len(rejected)), make)]

    columns = ("prompt", "chosen", "rejected")
    return _fitting(_stored_pairs(), rows, columns, build, text, context, long, "prompt and answer")


def _pair(kept: Ids, chosen: Ids, rejected: Ids, margin: float) -> Pair:
    return Pair(kept, chosen, rejected, margin=margin)


def _margin(row: Row) -> float:
    value = row.get("margin")
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise DataError(
            f"margin is {value!r}; wanted a number in every row, by which the score of the chosen answer should lead. "
            "Fix: fill it in, or leave the column out"
        )
    return float(value)


def unpaired(
    rows: Sequence[Row], text: Text, context: int | None, long: LongPrompts = "error"
) -> tuple[Stored[Rated], TooLong | None]:
    def build(number: int, row: Row) -> list[Part[Rated]]:
        tokens, (completion,) = text.answers(row, ("completion",))
        return [Part(tokens, len(completion), lambda kept: Rated(kept, completion, row["label"]))]

    columns = ("prompt", "completion")
    return _fitting(_stored_rated(), rows, columns, build, text, context, long, "prompt and completion")


def _fitting(
    items: Stored[Item],
    rows: Sequence[Row],
    columns: Sequence[str],
    build: Callable[[int, Row], list[Part[Item]]],
    text: Text,
    context: int | None,
    long: LongPrompts,
    what: str,
) -> tuple[Stored[Item], TooLong | None]:
    """Items of the rows, with what `long` says about those beyond the context.

    Args:
        items: takes them; empty.
        columns: what is encoded of a row.

    Raises: DataError naming the row, and where no row is left.
    """
    skipped, truncated = Places(), Places()
    reason = f"{what} exceed the model's context of {context} tokens"
    for number, row in enumerate(text.ahead(rows, columns)):
        with _placed(rows, number):
            parts = build(number, row)
        over = 0 if context is None else max((len(part.prompt) + part.rest for part in parts), default=0) - context
        if over > 0 and long == "skip":
            skipped.add(place(rows, number))
            continue
        if over > 0:
            if long == "error":
                raise DataError(
                    f"{place(rows, number)}: {reason} ({over + (context or 0)}). Fix: --long-prompts skip, which "
                    "counts and names such rows, or --long-prompts truncate-left, which cuts the prompt's beginning"
                )
            parts = [_cut(part, context or 0, text, place(rows, number), reason) for part in parts]
            truncated.add(place(rows, number))
        for part in parts:
            with _placed(rows, number):
                items.add(part.make(part.prompt))
    if skipped.count == len(rows):
        raise DataError(f"all {len(rows)} rows are too long: {reason}. Fix: shorter rows or --max-new-tokens")
    found = TooLong(skipped, truncated, len(rows), reason)
    return items, found if skipped.count or truncated.count else None


@contextmanager
def _placed(rows: Sequence[Row], number: int) -> Iterator[None]:
    """What is wrong with a row, with its place."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place(rows, number)}: {error}") from error


def _cut(part: Part[Item], context: int, text: Text, where: str, reason: str) -> Part[Item]:
    """The end of the prompt that fits; a token that begins every text stays in front of it.

    Raises: DataError where nothing of the prompt would be left.
    """
    over = len(part.prompt) + part.rest - context
    if over <= 0:
        return part
    begins = int(bool(part.prompt) and part.prompt[0] == text.tokenizer.bos_token_id)
    kept = (*part.prompt[:begins], *part.prompt[begins + over :])
    if len(kept) == begins:
        raise DataError(f"{where}: {reason}, and without the prompt too. Fix: --long-prompts skip")
    return replace(part, prompt=kept)


def place(rows: Sequence[Row], number: int) -> str:
    """A row's place in its source, or its number where it has none."""
    return rows.where(number) if isinstance(rows, Rows) else f"row {number + 1}"
