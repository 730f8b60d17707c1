"""What `--data` can name: a task, files, a folder or a data set on the hub, each opened as a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from oneloop.data.columnar import folder_table, hub_table, opened_table, parquet_table, wanted_split
from oneloop.data.files import FileTable, array_table, csv_table, lines_table
from oneloop.data.kinds import BadRow, Kind, Reading, Row
from oneloop.data.layouts import fitting_layouts
from oneloop.data.loaded import Loaded, loaded, renamings
from oneloop.data.packed import PACKED, unpacked
from oneloop.data.tables import JoinedTable, ListTable, Table
from oneloop.errors import ConfigError, DataError
from oneloop.tasks import TASKS
from oneloop.tasks.named import is_task, named_task
from oneloop.tasks.reasoning_gym import ReasoningGym
from oneloop.tasks.task import Split, unpaired

FORMATS = (".jsonl", ".json", ".parquet", ".csv")
_HUB = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")


def open_data(
    spec: str,
    kind: Kind,
    *,
    reading: Reading | None = None,
    part: Split = "train",
    size: int = 2048,
    seed: int = 0,
    prompts: bool = False,
) -> Loaded:
    """Rows of a task (`size` of them, from `seed`), of files, of a folder, or of `org/name[:config][@revision]`.

    Args:
        part: of a source that has several, where `reading` names none.
        prompts: number the prompts, for rows that are to be divided.

    Raises: ConfigError for an unknown task; DataError that names file, row and column.
    """
    reading = reading or Reading()
    if is_task(spec):
        table: Table = ListTable(_task_rows(spec, kind, part, size, seed), spec)
        notes: tuple[str, ...] = ()
    else:
        table, notes = _opened(spec, reading, part)
    found = loaded(table, spec, kind, reading, prompts=prompts)
    return replace(found, notes=_task_notes(spec, part, len(found.rows)) if is_task(spec) else (*notes, *found.notes))


def from_rows(
    rows: Sequence[Row] | Any, kind: Kind, *, reading: Reading | None = None, name: str = "data", prompts: bool = False
) -> Loaded:
    """Rows that a Python program holds: a list of dicts, or a `datasets.Dataset`."""
    reading = reading or Reading()
    table, notes = python_table(rows, name, reading.split)
    found = loaded(table, name, kind, reading, prompts=prompts)
    return replace(found, notes=(*notes, *found.notes))


def python_table(rows: Any, name: str, split: str = "") -> tuple[Table, tuple[str, ...]]:
    """Rows as they were handed over, not looked at yet.

    Raises: DataError for what is no table.
    """
    if isinstance(rows, Mapping) and not split:
        raise DataError(
            f"{name} is a {type(rows).__name__} with {[str(key) for key in rows]}; wanted a list of rows. "
            f"Fix: one of its splits, such as {name}=...['train']"
        )
    if hasattr(rows, "column_names"):  # asking for the class would load `datasets` for every list
        return opened_table(rows, name, split, "train")
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
        raise DataError(
            f"{name} is a {type(rows).__name__}; wanted a path, a hub id, task:NAME, a list of dicts or a "
            'datasets.Dataset. Fix for a table of pandas: frame.to_dict("records")'
        )
    if not rows:
        raise DataError(f"{name} has no rows")
    return ListTable(rows, name), ()


def columns_of(spec: str, reading: Reading | None = None) -> frozenset[str]:
    """Columns of the first row that can be read, before anyone says what it is wanted for."""
    return frozenset(_first(spec, reading or Reading(), "test"))


def kinds_of(spec: str, reading: Reading) -> dict[Kind, Sequence[str]]:
    """The kinds that a source's first row could be, the one with most to learn from first, each with its columns."""
    row = _first(spec, reading, "train")
    renamed = renamings(reading.columns)
    row = {renamed.get(name, name): value for name, value in row.items()}
    found: dict[Kind, Sequence[str]] = {}
    for layout in fitting_layouts(row, row):
        found.setdefault(layout.kind, layout.needs)
    turns = row.get("messages")
    asks = isinstance(turns, list) and turns and isinstance(turns[-1], dict) and turns[-1].get("role") != "assistant"
    order: list[Kind] = ["preferences", "unpaired", "demonstrations", "prompts"]
    unfit: Kind = "demonstrations" if asks else "prompts"
    if found.get(unfit) == ("messages",):
        order.remove(unfit)
    return {kind: found[kind] for kind in order if kind in found}


def _first(spec: str, reading: Reading, part: Split) -> Row:
    """The first row that can be read; {} where there is none."""
    table, _ = _opened(spec, reading, part)
    return next((row for row in table.every() if not isinstance(row, BadRow)), {})


def _task_rows(spec: str, kind: Kind, part: Split, size: int, seed: int) -> list[Row]:
    task = named_task(spec)
    if kind == "unpaired":
        return unpaired(task, size, seed, part)
    make: Callable[[int, int, Split], list[Row]] = getattr(task, kind)
    return make(size, seed, part)


def _task_notes(spec: str, part: Split, count: int) -> tuple[str, ...]:
    """A task's columns are what they are by design; of a package's task, who scores it is to be told."""
    task = named_task(spec)
    if not isinstance(task, ReasoningGym):
        return ()
    return (f"{spec}: {count} {'training' if part == 'train' else part} questions; scored by {task.scorer}",)


def _opened(spec: str, reading: Reading, part: Split) -> tuple[Table, tuple[str, ...]]:
    hub = _HUB.fullmatch(spec)
    if hub and not _exists(Path(spec)) and not Path(spec).parent.is_dir() and _format(spec) is None:
        return hub_table(spec, hub["name"], hub["config"], hub["revision"], reading.split, part)
    paths = _paths(spec)
    if len(paths) == 1 and paths[0].is_dir():
        return _folder(paths[0], reading.split, part)
    if reading.split:
        raise ConfigError(
            f"--split {reading.split}: {spec} names files, which have no splits. Fix: name the file to read, without "
            "--split"
        )
    return _tables(paths), ()


def _paths(spec: str) -> list[Path]:
    """One path, several with commas between them, or a pattern such as data/*.jsonl."""
    if _exists(Path(spec)):
        return [Path(spec)]
    found: list[Path] = []
    for piece in spec.split(","):
        if has_magic(piece):
            files = sorted(glob(piece, recursive=True))
            if not files:
                raise DataError(f"{piece}: no file fits the pattern (looked in {Path.cwd()})")
            found += map(Path, files)
        else:
            _check_there(Path(piece))
            found.append(Path(piece))
    return found


def _exists(path: Path) -> bool:
    try:
        path.stat()
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # a name that no file can have
        raise DataError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _check_there(path: Path) -> None:
    if not _exists(path):
        raise DataError(f"{path}: no such file (looked in {Path.cwd()}).{_near(path)}")


def _near(path: Path) -> str:
    """What the user may have meant by a path that is not there."""
    if path.name in TASKS:
        return f" Fix: --data task:{path.name}"
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    files = [item.name for item in path.parent.iterdir() if item.is_file()]
    near = get_close_matches(path.name, files, 5) or sorted(name for name in files if _format(name))[:5]
    return f" There is: {', '.join(near)}." if near else ""


def _format(name: str) -> str | None:
    for packed in ("", *PACKED):
        for ending in FORMATS:
            if name.lower().endswith(ending + packed):
                return ending
    return None


_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "validation": "validation",
    "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation",
}  # fmt: skip


def _folder(folder: Path, split: str, part: Split) -> tuple[Table, tuple[str, ...]]:
    """A folder that `datasets` has saved, or one of data files; names such as test.jsonl tell its splits."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return folder_table(folder, split, part)
    found = [*folder.glob("*"), *folder.glob("[!.]*/*")]
    files = sorted(path for path in found if _format(path.name) and path.name[0] != "." and path.is_file())
    if not files:
        raise DataError(
            f"{folder} is a folder without data files; wanted {', '.join(FORMATS)} in it, or save_to_disk's"
        )
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    if set(splits) == {""}:
        if split:
            raise ConfigError(f"--split {split}: no file name in {folder} tells a split. Fix: leave it out")
        return _tables(files), (f"{folder}: {len(files)} files, one after another",)
    name = wanted_split(str(folder), [name for name in splits if name], split, part)
    left = f"; left alone: {', '.join(key or 'files of no split' for key in splits if key != name)}"
    note = f"{folder}: split {name!r}, {len(splits[name])} files{left if len(splits) > 1 else ''}"
    return _tables(splits[name]), (note,)


def _split_of(path: Path) -> str:
    words = re.split(r"[^a-z]+", str(path).lower())
    return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), "")


def _tables(paths: Sequence[Path]) -> Table:
    """Tables of files; neighbours in parquet are one."""
    tables: list[Table] = []
    columnar: list[Path] = []
    for path in paths:
        ending = _format(path.name)
        if ending == ".parquet":
            columnar.append(path)
            continue
        if columnar:
            tables.append(parquet_table(columnar))
            columnar = []
        tables.append(_text_table(path, ending or _guessed(path)))
    if columnar:
        tables.append(parquet_table(columnar))
    return tables[0] if len(tables) == 1 else JoinedTable(tables)


def _guessed(path: Path) -> str:
    """Files of other names are read as JSON lines, unless they say that they are something else."""
    if path.is_dir():
        raise DataError(f"{path} is a folder among files. Fix: one folder alone, or files")
    return ".jsonl"


def _text_table(path: Path, ending: str) -> FileTable:
    with unpacked(path) as file:
        if ending == ".csv":
            return csv_table(str(path), file)
        first = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        file.seek(0)
        return (array_table if first == b"[" and ending == ".json" else lines_table)(str(path), file)
