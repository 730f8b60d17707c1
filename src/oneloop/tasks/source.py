"""Rows from a task or a JSONL file, every one checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from oneloop.errors import ConfigError, DataError
from oneloop.tasks import TASKS
from oneloop.tasks.task import Row, Split, unpaired

Kind = Literal["prompts", "demonstrations", "preferences", "unpaired"]
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "demonstrations": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
}
EXAMPLES: dict[Kind, str] = {
    "prompts": '{"prompt": "2+3=", "answer": "5"}',
    "demonstrations": '{"prompt": "2+3=", "completion": "5"}',
    "preferences": '{"prompt": "2+3=", "chosen": "5", "rejected": "6"}',
    "unpaired": '{"prompt": "2+3=", "completion": "5", "label": true}',
}


def load_rows(spec: str, kind: Kind, *, split: Split = "train", size: int = 2048, seed: int = 0) -> list[Row]:
    """Rows of `task:NAME` (`size` of them, from `seed`), or all rows of a JSONL file.

    Raises: ConfigError for an unknown task; DataError that names file, line and column.
    """
    if not spec.startswith("task:"):
        return _read(Path(spec), kind)
    name = spec.removeprefix("task:")
    if name not in TASKS:
        near = get_close_matches(name, TASKS, 1, 0.0)[0]
        raise ConfigError(f"--data {spec}: there is no task {name!r}. Did you mean task:{near}?")
    if kind == "unpaired":
        return unpaired(TASKS[name], size, seed, split)
    make: Callable[[int, int, Split], list[Row]] = getattr(TASKS[name], kind)
    return make(size, seed, split)


def plain_rows(given: Any, name: str) -> list[Row]:
    """Rows of a list of dicts or of anything that is walked through as one, such as a `datasets.Dataset`.

    Raises: DataError for what is no table, and naming row and column of what JSON cannot hold.
    """
    if isinstance(given, Mapping):
        raise DataError(
            f"{name} is a {type(given).__name__} with {[str(key) for key in given]}; wanted a list of rows. "
            f"Fix: one of its splits, such as {name}=...['train']"
        )
    try:
        rows = list(given)
    except TypeError:
        raise DataError(
            f"{name} is a {type(given).__name__}; wanted a path, a hub id, task:NAME, a list of dicts or a dataset"
        ) from None
    if not rows:
        raise DataError(f"{name} has no rows")
    return [_plain_row(f"{name}: row {number}", row) for number, row in enumerate(rows, start=1)]


def _plain_row(where: str, row: Any) -> Row:
    if not isinstance(row, Mapping) or not all(isinstance(column, str) for column in row):
        raise DataError(f"{where} is {_short(row)} of type {type(row).__name__}; wanted a dict with column names")
    for column, value in row.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{where}: {column!r} is {_short(value)} of type {type(value).__name__}, which JSON cannot hold "
                f"({error}). Fix: text, a finite number, a list or a dict of those, or None"
            ) from None
    return dict(row)


def checked_rows(rows: list[Row], kind: Kind, name: str) -> list[Row]:
    """Rows from Python, held to the same rules as those of a file."""
    for number, row in enumerate(rows, start=1):
        _check_characters(f"{name}: row {number}", row)
        _check_columns(f"{name}: row {number}", row, kind)
    return rows


def fingerprint(rows: list[Row]) -> str:
    """SHA-256 of the rows: resuming on other data must not go unnoticed."""
    return sha256(json.dumps(rows, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _read(path: Path, kind: Kind) -> list[Row]:
    # only newlines end a row: str.splitlines would also cut at U+2028 inside a text
    lines = [(number, line) for number, line in enumerate(_text(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{path} has no rows. Wanted lines such as {EXAMPLES[kind]}")
    return [_row(f"{path}:{number}", line, kind) for number, line in lines]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file (looked in {Path.cwd()}).{_near(path)}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; wanted a JSONL file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        wrong = error.object[error.start : error.start + 4]
        raise DataError(f"{path}:{line}: {wrong!r} is not UTF-8 text. Fix: save the file as UTF-8 JSONL") from None
    except (OSError, ValueError) as error:  # no permission, a name that no file can have
        raise DataError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _near(path: Path) -> str:
    """What the user may have meant by a path that is not there."""
    if path.name in TASKS:
        return f" Fix: --data task:{path.name}"
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    files = [item.name for item in path.parent.iterdir() if item.is_file()]
    near = get_close_matches(path.name, files, 5) or sorted(name for name in files if name.endswith(".jsonl"))[:5]
    return f" There is: {', '.join(near)}." if near else ""


def _row(where: str, line: str, kind: Kind) -> Row:
    try:
        row = json.loads(line, parse_constant=_no_number, parse_float=_finite)
        _check_characters(where, row)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}): {_short(line.strip())}") from None
    except RecursionError:
        raise DataError(f"{where}: nested too deep: {_short(line)}") from None
    except DataError:
        raise
    except ValueError as error:  # numbers: NaN, 1e999, thousands of digits
        raise DataError(f"{where}: {error}. Fix: write it as text, or null: {_short(line)}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}, wanted an object such as {EXAMPLES[kind]}")
    _check_columns(where, row, kind)
    return row


def _check_columns(where: str, row: Row, kind: Kind) -> None:
    if kind == "demonstrations" and "messages" in row:
        _check_messages(f"{where}: messages", row["messages"] or [])
        return
    for column in COLUMNS[kind]:
        if column not in row:
            raise DataError(
                f"{where}: columns {sorted(row)}, but no {column!r}. Wanted a line such as {EXAMPLES[kind]}"
            )
        if column == "label":
            _check_label(f"{where}: {column}", row[column])
        elif isinstance(row[column], list):
            _check_messages(f"{where}: {column}", row[column])
        else:
            _check_text(f"{where}: {column}", row[column], or_messages=True)
    if kind == "preferences" and row["chosen"] == row["rejected"]:
        raise DataError(f"{where}: chosen and rejected are the same ({_short(row['chosen'])}); no preference in it")


def _check_text(what: str, value: Any, *, or_messages: bool) -> None:
    if not isinstance(value, str):
        wanted = "text, or a list of messages with role and content" if or_messages else "text"
        raise DataError(f"{what} is {_short(value)} of type {type(value).__name__}; wanted {wanted}")
    if not value.strip():
        raise DataError(f"{what} is empty ({_short(value)})")


def _check_label(what: str, value: Any) -> None:
    if not isinstance(value, bool):
        kind = type(value).__name__
        raise DataError(f"{what} is {_short(value)} of type {kind}; wanted true for a good answer, false for a bad one")


def _check_messages(what: str, messages: list[Any]) -> None:
    if not messages:
        raise DataError(f"{what} is an empty list of messages")
    for place, message in enumerate(messages):
        fits = isinstance(message, dict) and isinstance(message.get("role"), str)
        if not fits or not isinstance(message.get("content"), str):
            raise DataError(f'{what}[{place}] is {_short(message)}; wanted {{"role": "user", "content": "..."}}')
    # an empty system message is common; messages without a word among them ask nothing
    if not any(message["content"].strip() for message in messages):
        raise DataError(f"{what} is empty: no message has content")


def _check_characters(what: str, value: Any) -> None:
    """Texts of every column, because rewards read them and the run folder keeps them."""
    if isinstance(value, str):
        if "\x00" in value:
            raise DataError(f"{what} contains a NUL character: {_short(value)}")
        if not _is_unicode(value):
            raise DataError(f"{what} contains half of a surrogate pair, which is no text: {_short(value)}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            _check_characters(f"{what}[{place}]", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_characters(f"{what}: the name of a column", name)
            _check_characters(f"{what}: {name}", item)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits} is too large for a number")
    return number


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
