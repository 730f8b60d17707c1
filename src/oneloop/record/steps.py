"""Tables by step: a small parquet file for each new step, one file for 64 finished ones, and a bound on their size."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from oneloop.errors import DataError

if TYPE_CHECKING:  # slow to load; only who reads or writes a table needs it
    import pyarrow

PACKED = 64
"""Steps that share a file once they are finished."""
_ONE, _MANY = re.compile(r"step_(\d+)\.parquet"), re.compile(r"steps_(\d+)-(\d+)\.parquet")
_ATTEMPTS = 3
"""How often a reader looks again where the file it has just seen is gone: its steps have moved into a packed one."""


class _Footer(NamedTuple):
    """What a file says of itself."""

    steps: tuple[int, ...]
    """Of each row group."""
    stride: int
    """When the file was written."""
    absent: Mapping[str, Sequence[str]]
    """Columns of the file that a step's own table had not, by step."""


class StepTables:
    """A folder of tables: `step_000012.parquet`, and `steps_000000-000063.parquet` with a row group for each step.

    Where `budget` is exceeded, only every second step stays, then every fourth, and so on: those that are multiples of
    the stride, which the files themselves name. What lies in the folder depends on the steps and the stride alone, not
    on where a run was interrupted.

    Args:
        budget: most bytes of the folder; None: no bound, every step stays.
    """

    def __init__(self, folder: Path, budget: int | None = None) -> None:
        self.folder, self._budget = folder, budget
        self._stride = 0  # not yet asked for
        self._unlike: set[int] = set()  # blocks whose tables cannot be one: a column changed its type

    @property
    def stride(self) -> int:
        """Every how many steps one may be kept."""
        return self._stride or max((_stride_of(path) for path, _ in self._files()), default=1)

    def steps(self) -> list[int]:
        """Steps with a table, in order."""
        return sorted(self._places())

    def read(self, step: int, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of a step, as plain values.

        Raises: KeyError for a step without a table; DataError where its file cannot be read.
        """
        return self.table(step, columns).to_pylist()

    def table(self, step: int, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """The table of a step, or some of its columns. Raises as `read`."""
        for attempt in range(_ATTEMPTS):
            path = self._places()[step]
            try:
                return _read(path, step, columns)
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError

    def write(self, step: int, table: pyarrow.Table) -> None:
        """Keep a step's table, unless the stride leaves the step out.

        Raises: OSError; what was there before stays.
        """
        self._stride = self.stride
        if step % self._stride:
            return
        self._write(self._single(step), {step: table})
        self._pack_finished(step)
        while self._budget is not None and self._size() > self._budget and len(self.steps()) > 1:
            self._thin(step)

    def cut(self, step: int) -> None:
        """Remove the tables from `step` on; what is left lies there as if they had never been written."""
        self._stride = self.stride
        for path, steps in self._files():
            if not steps or self._last_of(self._block(steps[0])) < step:
                continue  # a finished block, all of it before the cut
            if _ONE.fullmatch(path.name):
                if steps[0] >= step:
                    path.unlink()
                continue
            for kept in steps:
                if kept < step and not self._single(kept).exists():
                    self._write(self._single(kept), {kept: _read(path, kept)})
            path.unlink()

    def _pack_finished(self, step: int) -> None:
        """One file for each block of steps that is finished and lies in several."""
        blocks: dict[int, list[int]] = {}
        for path, steps in self._files():
            if _ONE.fullmatch(path.name):
                blocks.setdefault(self._block(steps[0]), [])
        for block in sorted(blocks.keys() - self._unlike):
            if self._last_of(block) <= step:
                self._repack(block)

    def _repack(self, block: int) -> None:
        places = {at: path for at, path in self._places().items() if self._block(at) == block}
        tables = {at: _read(places[at], at) for at in sorted(places)}
        try:
            target = self._pack(tables)
        except (TypeError, ValueError):  # pyarrow's words for two types in one column
            self._unlike.add(block)
            return
        for path, steps in self._files():
            if path != target and steps and set(steps) <= tables.keys():
                path.unlink()

    def _thin(self, step: int) -> None:
        """Double the stride: first the new files, then the old ones go."""
        old = [path for path, _ in self._files()]
        places = self._places()
        self._stride *= 2
        kept: dict[int, list[int]] = {}
        for at in sorted(places):
            if at % self._stride == 0:
                kept.setdefault(self._block(at), []).append(at)
        new: set[Path] = set()
        for block, steps in kept.items():
            tables = {at: _read(places[at], at) for at in steps}
            if self._last_of(block) <= step:
                new.add(self._pack(tables))
                continue
            for at, table in tables.items():
                new.add(self._single(at))
                self._write(self._single(at), {at: table})
        for path in old:
            if path not in new:
                path.unlink()

    def _pack(self, tables: Mapping[int, pyarrow.Table]) -> Path:
        target = self.folder / f"steps_{min(tables):06d}-{max(tables):06d}.parquet"
        self._write(target, tables)
        return target

    def _write(self, path: Path, tables: Mapping[int, pyarrow.Table]) -> None:
        _write(path, tables, self._stride)

    def _block(self, step: int) -> int:
        return step // (PACKED * self._stride)

    def _last_of(self, block: int) -> int:
        """The last step that a block can hold."""
        return ((block + 1) * PACKED - 1) * self._stride

    def _single(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}.parquet"

    def _size(self) -> int:
        return sum(path.stat().st_size for path, _ in self._files())

    def _places(self) -> dict[int, Path]:
        """The file of each step; a file of its own before a packed one, which may be about to go."""
        packed_first = sorted(self._files(), key=lambda file: _ONE.fullmatch(file[0].name) is not None)
        return {step: path for path, steps in packed_first for step in steps}

    def _files(self) -> list[tuple[Path, tuple[int, ...]]]:
        """Every file with its steps, in order of names; others and half-written ones left out."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:  # not there, or no folder
            return []
        found: list[tuple[Path, tuple[int, ...]]] = []
        for name in names:
            if one := _ONE.fullmatch(name):
                found.append((self.folder / name, (int(one[1]),)))
            elif many := _MANY.fullmatch(name):
                path = self.folder / name
                found.append((path, _steps_of(path, int(many[1]), int(many[2]))))
        return found


def _stride_of(path: Path) -> int:
    try:
        return _footer(path).stride
    except (FileNotFoundError, DataError):
        return 1


def _steps_of(path: Path, first: int, last: int) -> tuple[int, ...]:
    try:
        return _footer(path).steps
    except FileNotFoundError:
        return ()
    except DataError:
        return tuple(range(first, last + 1))  # that it cannot be read is for those to hear who ask for one of them


def _footer(path: Path) -> _Footer:
    facts = path.stat()
    return _known_footer(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=4096)
def _known_footer(path: Path, changed: int, size: int) -> _Footer:
    with _opened(path) as file:
        said = (file.metadata.metadata or {}).get(b"steps", b"")
    try:
        facts = json.loads(said)
        return _Footer(tuple(map(int, facts["steps"])), int(facts["stride"]), dict(facts["absent"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} does not say which steps it holds. Fix: rm {path}; nothing but the page needs it"
        ) from error


def _read(path: Path, step: int, columns: Sequence[str] | None = None) -> pyarrow.Table:
    if _ONE.fullmatch(path.name):
        with _opened(path) as file:
            return _checked(path, lambda: file.read(_there(file, columns, ())).replace_schema_metadata(None))
    pack = _footer(path)
    with _opened(path) as file:
        names = _there(file, columns, pack.absent.get(str(step), ()))
        group = pack.steps.index(step)
        return _checked(path, lambda: file.read_row_group(group, names).replace_schema_metadata(None))


def _there(file: Any, columns: Sequence[str] | None, absent: Sequence[str]) -> list[str]:
    return [name for name in file.schema_arrow.names if name not in absent and (columns is None or name in columns)]


def _opened(path: Path) -> Any:
    from pyarrow import parquet  # noqa: PLC0415

    return _checked(path, lambda: parquet.ParquetFile(path))


def _checked(path: Path, read: Callable[[], Any]) -> Any:
    import pyarrow  # noqa: PLC0415

    try:
        return read()
    except FileNotFoundError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}). Fix: rm {path}; nothing but the page needs it") from error


def _write(path: Path, tables: Mapping[int, pyarrow.Table], stride: int) -> None:
    """A row group for each step, under a temporary name until it is whole."""
    import pyarrow  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    schema = pyarrow.unify_schemas([table.schema for table in tables.values()])
    absent = {
        step: missing
        for step, table in tables.items()
        if (missing := [name for name in schema.names if name not in table.schema.names])
    }
    about = json.dumps({"steps": list(tables), "stride": stride, "absent": absent})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        # pyarrow's own copy of the schema would double a small file, and says nothing more
        with parquet.ParquetWriter(temporary, schema, store_schema=False) as writer:
            writer.add_key_value_metadata({"steps": about})
            for table in tables.values():
                if table.schema.names != schema.names:
                    table = pyarrow.concat_tables([schema.empty_table(), table], promote_options="default")
                writer.write_table(table, row_group_size=max(len(table), 1))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
