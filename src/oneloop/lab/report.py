"""One self-contained HTML file about one or more runs: the lab's pages, and what they would ask the server for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oneloop.errors import ConfigError, DataError
from oneloop.lab.about import about, labels
from oneloop.lab.answers import Refusal
from oneloop.lab.catalog import Catalog
from oneloop.lab.compare import MOST, compare
from oneloop.lab.document import document
from oneloop.lab.held import Holding
from oneloop.lab.sendable import without_folders
from oneloop.record.atomic import write_text
from oneloop.record.reader import METRICS, read_run

__all__ = ["Table", "report_run", "write_report"]


@dataclass(frozen=True)
class Table:
    """A table of plain text cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


def report_run(path: Path) -> Path:
    """Write `<run>/report.html`; returns its path."""
    name = path.resolve().name
    return write_report([(name, path)], path / "report.html", title=f"Run {name}")


def write_report(
    runs: Sequence[tuple[str, Path]],
    out: Path,
    *,
    title: str,
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> Path:
    """One file for named run folders. It opens without a server or a network; a long run is held in part.

    Raises: ConfigError when a path is no run folder.
    """
    records = [read_run(path) for _, path in runs]
    catalog = Catalog([path for _, path in runs])
    ids = {source.folder.path: key for key, (_, source) in catalog.runs().items()}
    holding = Holding(catalog, len(runs))
    facts: list[dict[str, Any]] = []
    for (name, path), record in zip(runs, records, strict=True):
        key = ids[path.resolve()]
        try:
            holding.run(key, name, str(path))
        except (OSError, Refusal, DataError) as error:  # a link, a pipe or a folder where a file was
            raise ConfigError(f"{path} cannot be shown: {error}. Fix: put the file back as the run wrote it") from error
        metrics = record.lines(METRICS)
        facts.append(without_folders(about(catalog.get(key)[1], key, name, metrics)))
        if metrics.damaged:
            holding.left.append(f"{key}: {metrics.damaged} lines of {METRICS} cannot be read (first: {metrics.first})")
    holding.tables()
    holding.answers["/api/report"] = {
        "title": title, "notes": list(notes), "tables": [asdict(table) for table in tables], "runs": facts, **labels(),
        "left": holding.left, "compared": _compared(catalog, [run["id"] for run in facts]),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, document(title, holding.answers))
    return out


def _compared(catalog: Catalog, ids: Sequence[str]) -> dict[str, Any] | None:
    """What the page that lays runs side by side says of them; None where they are not two to four."""
    if not 2 <= len(ids) <= MOST:
        return None
    found = compare([(key, catalog.get(key)[1]) for key in ids], "reward")
    return found | {"configs": without_folders(found["configs"])}
