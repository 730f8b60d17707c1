"""Checked rows of a source: a sequence that reads a row when it is asked for."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from random import Random
from typing import Any, overload

from oneloop.data.checks import check_row
from oneloop.data.kinds import EXAMPLES, BadRow, Kind, Reading, Row
from oneloop.data.layouts import Layout, detect, plain_layout
from oneloop.data.tables import Table, digest
from oneloop.errors import ConfigError, DataError

LOOKED_AT = 100
"""Rows from which the layout is told."""
NAMED = 5
"""Rows that a note names."""


class Rows(Sequence[Row]):
    """Normalised rows of a table, each made when it is asked for.

    Args:
        kept: the places of the table that are rows of it, in order.
    """

    def __init__(self, table: Table, layout: Layout, renamed: dict[str, str], kept: Sequence[int]) -> None:
        self.table, self.layout, self.renamed, self.kept = table, layout, renamed, kept

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Row | Rows:
        if isinstance(place, slice):
            return Rows(self.table, self.layout, self.renamed, self.kept[place])
        number = self.kept[place]
        try:
            return normalised(self.table.row(number), self.layout, self.renamed)
        except BadRow as bad:
            raise placed(bad, self.table.where(number)) from None

    def where(self, place: int) -> str:
        """The place of a row as a person finds it: file:line."""
        return self.table.where(self.kept[place])

    def __iter__(self) -> Iterator[Row]:
        """In order, which reads columns in batches where all rows are kept."""
        if len(self.kept) != len(self.table):
            yield from (self[place] for place in range(len(self)))
            return
        for number, row in enumerate(self.table.every()):
            if isinstance(row, BadRow):
                raise placed(row, self.table.where(number))
            yield normalised(row, self.layout, self.renamed)


@dataclass(frozen=True)
class Loaded:
    """Rows of one kind, every one of them checked.

    Args:
        source: as the user named it.
        notes: what was detected and why, and what was left out.
        skipped: rows that could not be used.
        columns: names that every row has.
        partial: names that some rows have.
        conversational: whether some row holds messages.
    """

    rows: Rows
    kind: Kind
    source: str
    notes: tuple[str, ...] = ()
    skipped: int = 0
    columns: frozenset[str] = frozenset()
    partial: frozenset[str] = frozenset()
    conversational: bool = False
    prompts: array[int] | None = field(default=None, repr=False)
    """A number for the prompt of each row, where rows are to be divided."""

    def where(self, row: int) -> str:
        """The place of a row as a person finds it: file:line."""
        return self.rows.where(row)

    def lacking(self, names: Sequence[str]) -> str | None:
        """The place of the first row that has none of these columns; None: all have one."""
        if not self.columns.isdisjoint(names):
            return None
        bare = (number for number, row in enumerate(self.rows) if not any(name in row for name in names))
        return next((self.where(number) for number in bare), None)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the rows as one JSON array: resuming on other data must not go unnoticed."""
        return digest(self.rows)

    def divided(self, share: str, seed: int) -> tuple[Loaded, Loaded]:
        """Training and held-out rows: "5%" or a number of rows, drawn by the seed. Rows with one prompt stay together.

        Raises: ConfigError for a share that leaves one of them empty.
        """
        count = part_of(share, len(self.rows))
        order = list(range(len(self.rows)))
        Random(f"{seed}-eval-split").shuffle(order)
        prompts = self.prompts
        if prompts is None:
            raise ValueError("divided rows need prompts=True when they are loaded")
        held = {prompts[place] for place in order[:count]}
        kept, out = array("q"), array("q")
        for place, number in enumerate(self.rows.kept):
            (out if prompts[place] in held else kept).append(number)
        if not kept or not out:
            raise ConfigError(
                f"--eval-split {share} of the {len(self.rows)} rows of {self.source} leaves {len(kept)} to train on "
                f"and {len(out)} to evaluate. Fix: another share, or --eval-data"
            )
        more = f", {len(out) - count} of them because they share a prompt" if len(out) > count else ""
        note = f"{self.source}: {len(out)} of {len(self.rows)} rows held out by --eval-split {share}{more}"
        return self._only(kept, (*self.notes, note)), replace(self._only(out, ()), skipped=0)

    def _only(self, kept: array[int], notes: tuple[str, ...]) -> Loaded:
        rows = Rows(self.rows.table, self.rows.layout, self.rows.renamed, kept)
        return replace(self, rows=rows, notes=notes, prompts=None)


def part_of(share: str, total: int) -> int:
    """Rows that "5%" or "200" are, of so many.

    Raises: ConfigError for anything else.
    """
    text = share.strip()
    try:
        count = max(1, round(total * float(text[:-1]) / 100)) if text.endswith("%") else int(text)
    except ValueError:
        count = 0
    if count < 1 or (text.endswith("%") and not 0 < float(text[:-1]) < 100):
        raise ConfigError(f"--eval-split {share}: wanted a share such as 5%, or a number of rows such as 200")
    return count


def normalised(row: Row, layout: Layout, renamed: dict[str, str]) -> Row:
    if renamed:
        taken = set(renamed.values())
        row = {renamed.get(name, name): row[name] for name in row if name in renamed or name not in taken}
    return layout.apply(row)


def placed(bad: BadRow, where: str) -> DataError:
    """What is wrong with a row, with its place and a way out."""
    text = str(bad)
    return DataError(f"{where}: {text}" + ("" if "Fix:" in text else ". Fix: mend the row, or --on-bad-row skip"))


def loaded(table: Table, source: str, kind: Kind, reading: Reading, *, prompts: bool = False) -> Loaded:
    """Every row of a table looked at once: the layout told from the first ones, bad rows found, columns listed.

    Args:
        prompts: number the prompts, for rows that are to be divided.

    Raises: DataError for a layout that does not fit, and for the first bad row unless they are skipped.
    """
    if not len(table):
        raise DataError(f"{source} has no rows. Wanted rows such as {EXAMPLES[kind]}")
    renamed = renamings(reading.columns)
    layout, reason = _detected(table, source, kind, reading, renamed)
    found = _scanned(table, layout, kind, reading, renamed, prompts)
    total = len(table)
    skipped = total - len(found.kept)
    if not found.kept:
        raise DataError(f"{source} has no usable row: all {total} are bad. The first: {found.bad[0]}")
    notes = [reason + _rest(found, layout)]
    if skipped:
        more = ", …" if skipped > len(found.bad) else ""
        notes.append(f"{source}: {skipped} of {total} rows skipped: {'; '.join(found.bad)}{more}")
    names = found.names
    columns = frozenset(set.intersection(*map(set, names)))
    return Loaded(
        rows=Rows(table, layout, renamed, range(total) if not skipped else found.kept),
        kind=kind,
        source=source,
        notes=tuple(notes),
        skipped=skipped,
        columns=columns,
        partial=frozenset(set.union(*map(set, names))) - columns,
        conversational=found.conversational,
        prompts=found.prompts,
    )


def _rest(found: _Scan, layout: Layout) -> str:
    """The columns that rewards can read, in words."""
    rest = sorted({name for names in found.names for name in names} - {"prompt", *layout.needs})
    return f"; other columns: {', '.join(rest)}" if rest and layout.kind == "prompts" else ""


def renamings(columns: Sequence[str]) -> dict[str, str]:
    """Old names to new ones.

    Raises: ConfigError for what is no `old=new`.
    """
    renamed: dict[str, str] = {}
    for pair in columns:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ConfigError(f"--columns {pair}: wanted old=new, such as question=prompt")
        renamed[old] = new
    if len(set(renamed.values())) < len(renamed):
        raise ConfigError(f"--columns {' '.join(columns)}: two columns would have one name")
    return renamed


def _detected(table: Table, source: str, kind: Kind, reading: Reading, renamed: dict[str, str]) -> tuple[Layout, str]:
    rows = [row for row in islice(table.every(), LOOKED_AT) if not isinstance(row, BadRow)]
    counts = Counter(name for row in rows for name in row)
    for old in renamed:
        if rows and old not in counts:
            raise ConfigError(
                f"--columns {old}={renamed[old]}: {source} has no column {old!r}; it has {', '.join(counts)}"
            )
    rows = [normalised(row, _NONE, renamed) for row in rows]
    counts = Counter(name for row in rows for name in row)
    names = [name for name, count in counts.items() if 2 * count >= len(rows)]
    usual = next((row for row in rows if set(names) <= set(row)), None)
    if usual is None:  # nothing can be read, or no two rows are alike: every row says for itself what is wrong
        return plain_layout(kind), f"{source}: {kind}"
    return detect(source, names, usual, kind, reading)


_NONE = Layout("as it is", "prompts", ())


@dataclass
class _Scan:
    kept: array[int] = field(default_factory=lambda: array("q"))
    bad: list[str] = field(default_factory=list)
    names: set[tuple[str, ...]] = field(default_factory=set)
    conversational: bool = False
    prompts: array[int] | None = None


def _scanned(
    table: Table, layout: Layout, kind: Kind, reading: Reading, renamed: dict[str, str], prompts: bool
) -> _Scan:
    found = _Scan(prompts=array("Q") if prompts else None)
    names = {new: old for old, new in renamed.items()}
    names = names | {new: names.get(old, old) for new, old in layout.rename.items()}
    for place, row in enumerate(table.every()):
        try:
            if isinstance(row, BadRow):
                raise row
            row = normalised(row, layout, renamed)
            check_row(row, kind, names)
        except BadRow as bad:
            error = placed(bad, table.where(place))
            if reading.on_bad_row == "error":
                raise error from None
            if len(found.bad) < NAMED:
                found.bad.append(str(error).replace(". Fix: mend the row, or --on-bad-row skip", ""))
            continue
        found.kept.append(place)
        found.names.add(tuple(row))
        found.conversational = found.conversational or not _is_text(row)
        if found.prompts is not None:
            found.prompts.append(_number(row))
    return found


def _is_text(row: Row) -> bool:
    return isinstance(row.get("prompt", row.get("text")), str)


def _number(row: Row) -> int:
    """Equal for rows with one prompt."""
    start: Any = row.get("prompt", row.get("messages", row.get("text")))
    return int.from_bytes(blake2b(json.dumps(start, sort_keys=True).encode(), digest_size=8).digest(), "big")
