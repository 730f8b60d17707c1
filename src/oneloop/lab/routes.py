"""What can be asked, and who answers. No route changes anything, and none needs the web server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from oneloop.health.codes import CODES
from oneloop.lab import tables
from oneloop.lab.about import about, labels
from oneloop.lab.answers import Refusal
from oneloop.lab.catalog import Catalog
from oneloop.lab.code import code
from oneloop.lab.columns import Index
from oneloop.lab.compare import compare
from oneloop.lab.lights import health
from oneloop.lab.memory import memory
from oneloop.lab.series import WAIT, curves, read
from oneloop.lab.source import Appended, Source
from oneloop.lab.studied import studies, study
from oneloop.secrets import redacted


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request, read and checked."""

    catalog: Catalog
    demo: Path | None = None
    run: str = ""
    name: str = ""
    row: int = 0
    step: int | None = None
    offset: int = 0
    mark: str = ""
    names: tuple[str, ...] = ()
    points: int = 1000
    limit: int = 50
    axis: str = "step"
    low: float | None = None
    high: float | None = None
    runs: tuple[str, ...] = ()
    metric: str = ""
    by_token: bool = False
    wait: float = WAIT
    """Seconds in which a long file is read on; a report waits for all of it."""

    def source(self) -> Source:
        """The run that is asked about. Raises: Refusal where there is none, or no more."""
        _, source = self.catalog.get(self.run)
        if not source.folder.exists():
            raise Refusal(410, "the run's folder is not there any more", "look at the list of runs")
        return source


def _line(key: str, name: str, source: Source) -> dict[str, Any]:
    line = source.line()
    status, words = line.status
    fields = {name: value for name, value in vars(line).items() if name != "status"}
    place = redacted({"name": name, "path": str(source.folder.path)})
    return {"id": key, **place, "kind": source.kind, "status": status, "words": words, **fields}


def _runs(ask: Question) -> Any:
    return {"runs": [_line(key, name, source) for key, (name, source) in ask.catalog.runs().items()]}


def _run(ask: Question) -> Any:
    source = ask.source()
    read(source, ask.wait)
    ready = source.index().ready  # asked for first: once it is 1, no name is missing
    names = [name for name in source.index().columns.names() if name not in ("step", "time")]
    return {
        **_line(ask.run, ask.catalog.get(ask.run)[0], source),
        **asdict(source.details()),
        "tables": tables.facts(source),
        "metrics": names,
        "ready": ready,
        "x": {"tokens": "num_tokens" in names},
    }


def _curves(ask: Question) -> Any:
    return curves(ask.source(), ask.names, ask.points, ask.axis, ask.low, ask.high)


def _lines(which: Appended) -> Callable[[Question], Any]:
    def lines(ask: Question) -> Any:
        answer = ask.source().page(which, ask.offset, ask.mark).answer()
        if which == "metrics" and ask.names:
            chosen = {"step", "time", *ask.names}
            answer["rows"] = [{name: row[name] for name in row if name in chosen} for row in answer["rows"]]
        elif which != "metrics":
            answer["rows"] = redacted(answer["rows"])
        return answer

    return lines


_memories: WeakKeyDictionary[Source, Index] = WeakKeyDictionary()
_lock = threading.Lock()


def _memory(ask: Question) -> Any:
    source = ask.source()
    with _lock:
        index = _memories.setdefault(source, Index(source.folder, "memory.jsonl"))
    return memory(source, index, ask.wait)


def _compare(ask: Question) -> Any:
    return compare([(key, ask.catalog.get(key)[1]) for key in ask.runs], ask.metric)


def _report(ask: Question) -> Any:
    source = ask.source()
    name = redacted(ask.catalog.get(ask.run)[0])
    facts = {"title": f"Run {name}", "notes": [], "tables": [], "runs": [about(source, ask.run, name)], "left": []}
    return facts | labels() | {"compared": None}


def _explain(name: str) -> Any:
    if name not in CODES:
        raise Refusal(404, "there is no alert of that name", "oneloop explain A_DEAD")
    return {"code": name, **CODES[name]._asdict()}


def _demo(ask: Question) -> Any:
    runs = ask.catalog.runs().items()
    mine = [key for key, (_, source) in runs if ask.demo and source.folder.path.is_relative_to(ask.demo)]
    return {"run": mine[0] if mine else None, "runs": mine}


ROUTES: dict[str, Callable[[Question], Any]] = {
    "/runs": _runs,
    "/runs/{run}": _run,
    "/runs/{run}/curves": _curves,
    "/runs/{run}/metrics": _lines("metrics"),
    "/runs/{run}/events": _lines("events"),
    "/runs/{run}/evaluations": _lines("evaluations"),
    "/runs/{run}/health": lambda ask: health(ask.source()),
    "/runs/{run}/rollouts": lambda ask: tables.rollouts(ask.source(), ask.step),
    "/runs/{run}/rollouts/{row}": lambda ask: tables.rollout(ask.source(), ask.step, ask.row),
    "/runs/{run}/prompt": lambda ask: tables.same_prompt(ask.source(), ask.step, ask.row, ask.limit),
    "/runs/{run}/ratios": lambda ask: tables.ratios(ask.source(), ask.step, by_token=ask.by_token),
    "/runs/{run}/tokens": lambda ask: tables.tokens(ask.source(), ask.step),
    "/runs/{run}/pairs": lambda ask: tables.pairs(ask.source(), ask.step),
    "/runs/{run}/memory": _memory,
    "/runs/{run}/report": _report,
    "/compare": _compare,
    "/code/{name}": lambda ask: code(ask.name),
    "/explain/{name}": lambda ask: _explain(ask.name),
    "/demo": _demo,
    "/studies": lambda ask: studies(),
    "/studies/{name}": lambda ask: study(ask.name),
}
"""Paths below /api."""
