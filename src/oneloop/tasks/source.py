"""Rows from a task or a JSONL file, every one checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from oneloop.errors import ConfigError, DataError
from oneloop.tasks import TASKS
from oneloop.tasks.task import Row, Split

Kind = Literal["prompts", "demonstrations", "preferences"]
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "demonstrations": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
}
EXAMPLES: dict[Kind, str] = {
    "prompts": '{"prompt": "2+3=", "answer": "5"}',
    "demonstrations": '{"prompt": "2+3=", "completion": "5"}',
    "preferences": '{"prompt": "2+3=", "chosen": "5", "rejected": "6"}',
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
    make: Callable[[int, int, Split], list[Row]] = getattr(TASKS[name], kind)
    return make(size, seed, split)


def fingerprint(rows: list[Row]) -> str:
    """SHA-256 of the rows: resuming on other data must not go unnoticed."""
    return sha256(json.dumps(rows, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def _read(path: Path, kind: Kind) -> list[Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.jsonl")] if path.parent.is_dir() else []
        hint = f" There is: {', '.join(sorted(near)[:5])}." if near else ""
        raise DataError(f"{path}: no such file (looked in {Path.cwd()}).{hint}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; wanted a JSONL file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8. Fix: save the file as UTF-8") from None
    # only newlines end a row: str.splitlines would also cut at U+2028 inside a text
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{path} has no rows. Wanted lines such as {EXAMPLES[kind]}")
    return [_row(f"{path}:{number}", line, kind) for number, line in lines]


def _row(where: str, line: str, kind: Kind) -> Row:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}): {_short(line)}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}, wanted an object such as {EXAMPLES[kind]}")
    for column in COLUMNS[kind]:
        if column not in row:
            raise DataError(
                f"{where}: columns {sorted(row)}, but no {column!r}. Wanted a line such as {EXAMPLES[kind]}"
            )
        _check_text(f"{where}: {column}", row[column], messages=column == "prompt")
    if kind == "preferences" and row["chosen"] == row["rejected"]:
        raise DataError(f"{where}: chosen and rejected are the same ({_short(row['chosen'])}); no preference in it")
    return row


def _check_text(what: str, value: Any, *, messages: bool) -> None:
    if messages and isinstance(value, list):
        _check_messages(what, value)
    elif not isinstance(value, str):
        wanted = "text, or a list of messages with role and content" if messages else "text"
        raise DataError(f"{what} is {_short(value)} of type {type(value).__name__}; wanted {wanted}")
    elif not value.strip():
        raise DataError(f"{what} is empty ({value!r})")
    elif "\x00" in value:
        raise DataError(f"{what} contains a NUL character: {_short(value)}")
    elif any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{what} contains half of a surrogate pair, which is no text: {_short(value)}")


def _check_messages(what: str, messages: list[Any]) -> None:
    if not messages:
        raise DataError(f"{what} is an empty list of messages")
    for place, message in enumerate(messages):
        fits = isinstance(message, dict) and isinstance(message.get("role"), str)
        if not fits or not isinstance(message.get("content"), str):
            raise DataError(f'{what}[{place}] is {_short(message)}; wanted {{"role": "user", "content": "..."}}')


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
