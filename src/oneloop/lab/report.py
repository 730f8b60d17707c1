"""One self-contained HTML page about one or more runs: tables, curves as pictures, completions, alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oneloop.lab.curves import curves
from oneloop.lab.page import Table, document, note, shown, table
from oneloop.lab.samples import samples
from oneloop.lab.settings import settings
from oneloop.record.atomic import write_text
from oneloop.record.reader import RunRecord, read_run

__all__ = ["Table", "report_run", "write_report"]

ALERTS_SHOWN = 200


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
    """One page for named run folders; every word of a run is escaped, for completions are hostile input.

    Raises: ConfigError when a path is no run folder.
    """
    records = [(name, read_run(path)) for name, path in runs]
    body = [f"<h1>{shown(title)}</h1>", *(note(text) for text in notes)]
    body += [table(given) for given in tables]
    body.append(table(_runs(records)))
    body.append(_alerts(records))
    body += [settings(name, record) for name, record in records]
    body += ["<h2>Learning curves</h2>", curves(records)]
    body += [samples(name, record) for name, record in records if record.rollout_steps()]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, document(title, body))
    return out


def _runs(records: Sequence[tuple[str, RunRecord]]) -> Table:
    header = ("run", "algorithm", "model", "seed", "steps", "minutes", "status")
    return Table(header, [_run(name, record) for name, record in records], "the runs on this page")


def _run(name: str, record: RunRecord) -> list[str]:
    info, metrics = record.info, record.metrics
    facts = [str(info.get(key, "")) for key in ("algorithm", "model", "seed")]
    steps = f"{metrics[-1]['step'] + 1 if metrics else 0}" + (f" of {info['steps']}" if "steps" in info else "")
    minutes = f"{(metrics[-1]['time'] - metrics[0]['time']) / 60:.1f}" if metrics else ""
    return [name, *facts, steps, minutes, _status(info)]


def _status(info: dict[str, Any]) -> str:
    """A killed run says "running" for ever, so that word never stands alone."""
    status = str(info.get("status", "unknown"))
    if status in ("running", "starting") and "heartbeat" in info:
        heard = datetime.fromtimestamp(info["heartbeat"], UTC).isoformat(sep=" ", timespec="seconds")
        return f"{status} when last heard of, {heard}"
    return f"{status}: {info['failure']}" if info.get("failure") else status


def _alerts(records: Sequence[tuple[str, RunRecord]]) -> str:
    rows = [
        [name, str(event["step"] + 1), event["code"], event["text"], event["fix"]]
        for name, record in records
        for event in record.events
    ]
    if not rows:
        return "<h2>Alerts</h2>" + note("none")
    left = f"; the first {ALERTS_SHOWN} are shown" if len(rows) > ALERTS_SHOWN else ""
    caption = f"{len(rows)} alert{'s' if len(rows) > 1 else ''}{left}"
    return "<h2>Alerts</h2>" + table(Table(("run", "step", "code", "what", "fix"), rows[:ALERTS_SHOWN], caption))
