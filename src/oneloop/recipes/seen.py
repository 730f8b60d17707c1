"""Rows as the model sees them: their tokens, which of them are trained, how long they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Any

from oneloop.data import Kind, Row, Rows
from oneloop.errors import DataError
from oneloop.model.text import Text
from oneloop.recipes.items import place
from oneloop.rewards.adapters import HOLD_THE_ANSWER
from oneloop.types import Tokens

SAMPLED = 2048
"""Rows that are encoded; of more, so many are drawn by the seed."""
ANSWERS = ("completion", "response", *HOLD_THE_ANSWER)
"""Columns beside a prompt in which a right answer stands, where it is known; the first is taken."""
GUESS = "I do not know."
"""A wrong answer where none is known."""


@dataclass(frozen=True)
class View:
    """One text that the model reads."""

    name: str
    tokens: Tokens

    @property
    def prompt(self) -> int:
        """Tokens before the first that is trained."""
        return self.tokens.trained.index(True) if True in self.tokens.trained else len(self.tokens.ids)

    @property
    def trained(self) -> tuple[int, ...]:
        return tuple(number for number, flag in zip(self.tokens.ids, self.tokens.trained, strict=True) if flag)


@dataclass(frozen=True)
class Seen:
    """A row with every text that it becomes.

    Args:
        answer: tokens of its answer; None where that is not known.
    """

    place: str
    views: tuple[View, ...]
    answer: int | None

    @property
    def prompt(self) -> int:
        return max(view.prompt for view in self.views)

    @property
    def longest(self) -> int:
        return max(len(view.tokens.ids) for view in self.views)


@dataclass(frozen=True)
class Answers:
    """Right and wrong answers, where they are known.

    Args:
        pairs: the preferences of a task, by their prompt.
        read: columns that rewards read: of several that hold an answer, theirs counts.
    """

    pairs: Mapping[str, Row] = field(default_factory=dict)
    read: tuple[str, ...] = ()

    def right(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        """Where it comes from, and its text."""
        if (pair := self._pair(row)) is not None:
            return "the task's own", pair["chosen"]
        for name in sorted(ANSWERS, key=lambda name: name not in self.read):
            value = row.get(name)
            if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).strip():
                return f"column {name}", str(value)
        return None

    def wrong(self, row: Mapping[str, Any], others: Iterable[Row]) -> str:
        """In the form of a right one: a rejected one, or the answer of another row."""
        if (pair := self._pair(row)) is not None:
            return pair["rejected"]
        own = self.right(row)
        for other in others if own else ():
            known = self.right(other)
            if own and known and known[1].strip() != own[1].strip():
                return known[1]
        return GUESS

    def _pair(self, row: Mapping[str, Any]) -> Row | None:
        return self.pairs.get(row["prompt"]) if isinstance(row.get("prompt"), str) else None


def seen(row: Row, place: str, kind: Kind, text: Text, answers: Answers) -> Seen:
    """Raises: DataError where the row cannot be encoded."""
    if kind == "prompts":
        ids, _ = text.prompt(row["prompt"], row.get("tools"))
        known = answers.right(row)
        answer = None if known is None else len(text.completion(known[1], row["prompt"]))
        return Seen(place, (View("prompt", Tokens(ids, (False,) * len(ids))),), answer)
    if kind == "demonstrations":
        rows = text.demonstrations(row)
        names = ["demonstration"] if len(rows) == 1 else [f"turn {n + 1} of {len(rows)}" for n in range(len(rows))]
        views = tuple(View(name, tokens) for name, tokens in zip(names, rows, strict=True))
    else:
        columns = ("chosen", "rejected") if kind == "preferences" else ("completion",)
        names = columns if kind == "preferences" else ("good answer" if row["label"] else "bad answer",)
        ids, said = text.answers(row, columns)
        views = tuple(View(name, _answered(ids, answer)) for name, answer in zip(names, said, strict=True))
    return Seen(place, views, max(len(view.tokens.ids) - view.prompt for view in views))


def _answered(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tokens:
    return Tokens((*prompt, *answer), (*(False,) * len(prompt), *(True,) * len(answer)))


@dataclass(frozen=True)
class Looked:
    """What was found in some rows.

    Args:
        rows: those that could be encoded.
        refused: the first place and the count of each reason why others could not.
    """

    rows: Rows
    seen: tuple[Seen, ...]
    refused: Mapping[str, tuple[str, int]]


def sampled(rows: Rows, seed: int) -> Rows:
    """All rows, or `SAMPLED` of them in their order."""
    if len(rows) <= SAMPLED:
        return rows
    return _only(rows, sorted(Random(f"{seed}-check").sample(range(len(rows)), SAMPLED)))


def _only(rows: Rows, places: Sequence[int]) -> Rows:
    return Rows(rows.table, rows.layout, rows.renamed, [rows.kept[number] for number in places])


def looked(rows: Rows, kind: Kind, text: Text, answers: Answers) -> Looked:
    """Every row encoded."""
    found: list[Seen] = []
    kept: list[int] = []
    refused: dict[str, tuple[str, int]] = {}
    for number in range(len(rows)):
        where = place(rows, number)
        try:
            found.append(seen(rows[number], where, kind, text, answers))
            kept.append(number)
        except DataError as error:
            first, count = refused.get(str(error), (where, 0))
            refused[str(error)] = (first, count + 1)
    return Looked(_only(rows, kept), tuple(found), refused)


def oddities(kind: Kind, rows: Sequence[Seen], text: Text, limit: int) -> Iterator[str]:
    """What no run refuses and nobody wants.

    Args:
        limit: most tokens of a completion that is sampled.
    """
    views = [(row.place, view) for row in rows for view in row.views]
    if kind == "demonstrations":
        bare = [row.place for row in rows if not any(view.trained for view in row.views)]
        if bare:
            yield (
                f"{_share(bare, rows)} have no token to train and are left out. Fix: a turn of the assistant's after "
                "the user's in every row"
            )
    bos = beginning(text)
    if bos is not None and (twice := [place for place, view in views if view.tokens.ids.count(bos) > 1]):
        yield (
            f"{_share(twice, rows)} have several beginnings of sequence ({text.tokenizer.bos_token}). Fix: take it out "
            "of the text of the rows; the template or the tokenizer writes it"
        )
    unknown = text.tokenizer.unk_token_id
    if unknown not in (*text.end_ids, text.tokenizer.bos_token_id) and (
        lost := [place for place, view in views if unknown in view.tokens.ids]
    ):
        yield (
            f"{_share(lost, rows)} hold characters that the tokenizer does not know ({text.tokenizer.unk_token}): the "
            "model cannot tell one from another. Fix: leave them out of the data, or a model that knows them"
        )
    if endless := [place for place, view in views if view.trained and view.trained[-1] not in text.end_ids]:
        yield (
            f"{_share(endless, rows)} end without a token that ends an answer, so nobody learns to stop there. Fix: a "
            "chat template that marks the end of a turn as generated"
        )
    if kind == "preferences":
        same = [row.place for row in rows if row.views[0].tokens == row.views[1].tokens]
        if same:
            yield (
                f"{_share(same, rows)} have one answer twice, once they are tokens: there is no preference to learn. "
                "Fix: leave such rows out"
            )
    long = [row.place for row in rows if row.answer is not None and row.answer > limit]
    if kind == "prompts" and long:
        most = max(row.answer or 0 for row in rows)
        yield (
            f"{_share(long, rows)} have a known answer of more than --max-new-tokens {limit}, so a completion like it "
            f"would be cut. Fix: --max-new-tokens {most}"
        )
    if text.chat.counts["joined"]:
        yield next(note for note in text.notes if "begin inside a token" in note) + ". Fix: that space moved"


def beginning(text: Text) -> int | None:
    """The token that begins a text and nothing else: some tokenizers end texts with it too."""
    bos: int | None = text.tokenizer.bos_token_id  # pyright: ignore[reportAssignmentType]
    return None if bos in text.end_ids else bos


def _share(places: Sequence[str], rows: Sequence[Seen]) -> str:
    """
    >>> _share(["a.jsonl:1", "a.jsonl:3"], [Seen("", (), None)] * 4)
    '2 of 4 rows (50 %; a.jsonl:1, a.jsonl:3)'
    """
    named = list(dict.fromkeys(places))
    more = ", …" if len(named) > 3 else ""
    return f"{len(named)} of {len(rows)} rows ({len(named) / len(rows):.0%}; {', '.join(named[:3])}{more})".replace(
        "%;", " %;"
    )


@dataclass(frozen=True)
class Spread:
    """How some lengths lie, in tokens."""

    least: int
    median: float
    most_of_them: int
    """95 % are at most this long."""
    most: int


def spread(lengths: Sequence[int]) -> Spread | None:
    """
    >>> spread([4, 1, 2, 3])
    Spread(least=1, median=2.5, most_of_them=4, most=4)
    """
    if not lengths:
        return None
    ordered = sorted(lengths)
    return Spread(ordered[0], median(ordered), ordered[-(-95 * len(ordered) // 100) - 1], ordered[-1])


def spelled(text: Text, number: int) -> str:
    """A token as a person reads it; one that is no whole character as the tokenizer writes it."""
    tokenizer = text.tokenizer
    raw = str(tokenizer.convert_ids_to_tokens(number))
    shown = str(tokenizer.decode([number], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if not shown or "\N{REPLACEMENT CHARACTER}" in shown:
        return raw
    # decoders of SentencePiece drop the space that begins a text
    return f" {shown}" if raw.startswith("\N{LOWER ONE EIGHTH BLOCK}") and not shown.startswith(" ") else shown
