"""Sources with typed columns, through Hugging Face `datasets`: memory-mapped, converted once into its cache."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from oneloop.data.packed import scratch, unpacked_path
from oneloop.data.tables import ArrowTable, Table
from oneloop.errors import ConfigError, DataError
from oneloop.tasks.task import Split

Opened = tuple[Table, tuple[str, ...]]


def parquet_table(paths: Sequence[Path]) -> ArrowTable:
    """Files of one schema.

    Raises: DataError for what is no parquet, and naming the column in which a file differs from the first.
    """
    plain = [unpacked_path(path) for path in paths]
    counts = _checked_schemas(paths, plain)
    with _quiet() as datasets, _explained(", ".join(map(str, paths[:3]))):
        dataset = datasets.load_dataset(
            "parquet", data_files=[str(path) for path in plain], split="train", cache_dir=scratch()
        )
    ends = list(accumulate(counts))

    def place_of(place: int) -> str:
        number = bisect_right(ends, place)
        return f"{paths[number]} row {place - (ends[number - 1] if number else 0) + 1}"

    return ArrowTable(dataset, place_of)


def _checked_schemas(paths: Sequence[Path], plain: Sequence[Path]) -> list[int]:
    """Rows of each file."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    counts: list[int] = []
    first: dict[str, Any] = {}
    for path, file in zip(paths, plain, strict=True):
        try:
            with ParquetFile(file) as opened:
                schema, rows = opened.schema_arrow, opened.metadata.num_rows
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: not a parquet file ({_line(error)}). Fix: download or write it again") from None
        counts.append(rows)
        types = {column.name: column.type for column in schema}
        first = first or types
        for name in {**first, **types}:
            here, there = types.get(name, "missing"), first.get(name, "missing")
            if here != there and here != pyarrow.null():
                raise DataError(
                    f"{path}: the column {name!r} is {here}, and in {paths[0]} {there}; files that are read together "
                    "need the same columns. Fix: write them again with one schema, or read one of them"
                )
    return counts


def folder_table(folder: Path, split: str, part: Split) -> Opened:
    """A folder that `save_to_disk` has written."""
    with _quiet() as datasets, _explained(str(folder)):
        opened = datasets.load_from_disk(str(folder))
    return opened_table(opened, str(folder), split, part, "{} row {}", 1)


def opened_table(opened: Any, name: str, split: str, part: Split, place: str = "{}[{}]", first: int = 0) -> Opened:
    """A `Dataset`, or the wanted split of a `DatasetDict`."""
    notes: tuple[str, ...] = ()
    if isinstance(opened, dict):
        chosen = wanted_split(name, list(opened), split, part)
        others = [other for other in opened if other != chosen]
        notes = (f"{name}: split {chosen!r}" + (f"; left alone: {', '.join(others)}" if others else ""),)
        opened = opened[chosen]
    elif split and split != "train":
        raise ConfigError(f"--split {split}: {name} has no splits. Fix: leave it out")
    if not hasattr(opened, "__len__"):
        raise DataError(f"{name} is a stream of rows, whose number nobody knows. Fix: load it without streaming=True")
    return ArrowTable(opened, lambda number: place.format(name, number + first)), notes


def wanted_split(name: str, splits: Sequence[str], split: str, part: Split) -> str:
    """The split that is asked for; for training `train`, for held-out rows `test` or `validation`, or the only one.

    Raises: ConfigError with those that there are.
    """
    preferred = [split] if split else ["train"] if part == "train" else ["test", "validation"]
    for wanted in preferred:
        if wanted in splits:
            return wanted
    if len(splits) == 1 and not split:
        return splits[0]
    raise ConfigError(
        f"--split {split or preferred[0]}: {name} has the splits {', '.join(splits)}. Fix: --split {splits[0]}"
    )


def hub_table(spec: str, name: str, config: str | None, revision: str | None, split: str, part: Split) -> Opened:
    """A data set on the hub, or in the cache where the hub cannot be reached.

    Raises: DataError in one message, without waiting through retries.
    """
    with _quiet() as datasets, _explained(spec):
        reached = _reach(spec, name, revision)
        with _offline(datasets, not reached):
            opened = datasets.load_dataset(name, config, revision=revision, split=split or None, cache_dir=scratch())
    return opened_table(opened, spec, "" if split else split, part, "{} row {}", 1)


def _reach(spec: str, name: str, revision: str | None) -> bool:
    """Whether the hub answers; one question instead of a minute of retries."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.HfApi().dataset_info(name, revision=revision, timeout=10)
    except HfHubHTTPError as error:
        raise DataError(
            f"{spec} is no file, and the hub has no such data set for you ({_line(error)}). Fix: the path of a file, "
            "org/name[:config][@revision], or `hf auth login` for a private or gated one"
        ) from None
    except Exception:
        return False
    return True


@contextmanager
def _offline(datasets: Any, wanted: bool) -> Iterator[None]:
    """Read the cache only."""
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if wanted:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    except (ConnectionError, FileNotFoundError) as error:
        raise DataError(
            f"{_line(error)}: there is no file of this name, the hub cannot be reached, and the cache has no copy. "
            "Fix: the path of a file, or a network (HF_HUB_OFFLINE is " + ("set" if before[1] else "not set") + ")"
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[Any]:
    """`datasets`, which takes a second to load, without its bars over the terminal's own."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Failures of a library in one message, which names the source."""
    try:
        yield
    except (ConfigError, DataError):
        raise
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise DataError(
            f"{name} cannot be read: {type(root).__name__}: {_line(root)}. Fix: what it names, or another source"
        ) from error


def _line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 300 else f"{text[:297]}..."
