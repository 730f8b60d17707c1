"""What a report holds of the server's answers: enough for every page, within a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from oneloop.errors import OneloopError
from oneloop.health.codes import CODES
from oneloop.lab import tables
from oneloop.lab.about import ROWS_SHOWN, STEPS_SHOWN, spread
from oneloop.lab.answers import Refusal, encoded
from oneloop.lab.catalog import Catalog
from oneloop.lab.code import NAMES as CODE
from oneloop.lab.routes import ROUTES, Question
from oneloop.lab.sendable import sendable, without_folders
from oneloop.lab.series import NAMES
from oneloop.lab.source import Source, Table

TEXT = 1500
"""Characters of a prompt or a completion."""
EVENTS = 200
POINTS, MOST_POINTS = 160_000, 400
"""Points of all curves together, and of one."""
BUDGET = 6 * 2**20
"""Bytes of tables and memory, of all runs together. A report is then no larger than about 10 MiB."""


WHOLE = 3600.0
"""Seconds that a report waits until a file is read."""


class Holding:
    """Answers by the route that the pages ask for; of step tables a few steps. `left` says what is not held."""

    def __init__(self, catalog: Catalog, runs: int) -> None:
        self.answers: dict[str, Any] = {
            "/api/runs": {"runs": []},
            "/api/demo": {"run": None, "runs": []},
            **{f"/api/code/{name}": ROUTES["/code/{name}"](Question(catalog=catalog, name=name)) for name in CODE},
            **{
                f"/api/explain/{name}": ROUTES["/explain/{name}"](Question(catalog=catalog, name=name))
                for name in CODES
            },
        }
        self.left: list[str] = []
        self._catalog, self._runs, self._budget = catalog, runs, BUDGET

    def run(self, key: str, name: str, path: str) -> None:
        """What a run is: all but its tables."""
        ask = Question(catalog=self._catalog, run=key, wait=WHOLE)
        facts = {**sendable(ROUTES["/runs/{run}"](ask)), "name": name, "path": without_folders(path)}
        line = {field: facts[field] for field in _LINE}
        self.answers["/api/runs"]["runs"].append(line)
        self.answers[f"/api/runs/{key}"] = facts
        self._keep(key, "/health", lambda ask: without_folders(ROUTES["/runs/{run}/health"](ask)), ask)
        self._keep(key, "/evaluations", ROUTES["/runs/{run}/evaluations"], ask)
        self._keep(key, "/events", lambda ask: without_folders(_few(ROUTES["/runs/{run}/events"](ask))), ask)
        self.answers[f"/api/runs/{key}/curves"] = self._curves(ask, facts["metrics"])

    def tables(self) -> None:
        """Of all runs that were given, the telling tables first, as long as there is room."""
        for kind, at in _TABLES.items():
            for key in [line["id"] for line in self.answers["/api/runs"]["runs"]]:
                source = self._catalog.get(key)[1]
                steps = spread(_steps(source, kind), STEPS_SHOWN)
                held = [step for step in steps if self._table(key, kind, step, at)]
                self._say(key, kind, held)
        for line in self.answers["/api/runs"]["runs"]:
            ask = Question(catalog=self._catalog, run=line["id"], wait=WHOLE)
            self._keep(ask.run, "/memory", ROUTES["/runs/{run}/memory"], ask)

    def _table(self, key: str, kind: Table, step: int, at: Callable[[Source, int], Any]) -> bool:
        ask = Question(catalog=self._catalog, run=key, step=step)
        return self._keep(key, f"/{kind}?step={step}", lambda ask: at(ask.source(), step), ask)

    def _keep(self, key: str, rest: str, answer: Callable[[Question], Any], ask: Question) -> bool:
        """Hold an answer if there is one, and room for it."""
        try:
            value = answer(ask)
        except (Refusal, OSError, OneloopError, KeyError):
            return False  # a damaged table is named where completions are shown, and the page says what is not held
        size = len(encoded(value))
        if size > self._budget:
            self.left.append(f"{key}: {rest.strip('/').replace('?step=', ' of step index ')} ({size:,} bytes)")
            return False
        self._budget -= size
        self.answers[f"/api/runs/{key}{rest}"] = value
        return True

    def _say(self, key: str, kind: Table, held: Sequence[int]) -> None:
        """The run's own words about its tables are about what is held."""
        run = self.answers[f"/api/runs/{key}"]
        count = run["tables"][kind]["count"]
        if len(held) < count:
            words = f"this file holds the {kind} of {len(held)} of {count} steps; all of them: oneloop lab"
            run["lacks"].append(words)
        run["tables"][kind] = tables.facts_of(held) | {"count": count}

    def _curves(self, ask: Question, names: Sequence[str]) -> Any:
        """Every metric over the steps."""
        points = max(min(POINTS // max(len(names) * self._runs, 1), MOST_POINTS), 4)
        series: list[Any] = []
        for start in range(0, len(names), NAMES):
            part = replace(ask, names=tuple(names[start : start + NAMES]), points=points)
            series += ROUTES["/runs/{run}/curves"](part)["series"]
        for one in series:
            for values in (one["y"], one["low"] or [], one["high"] or []):
                values[:] = [float(f"{value:.6g}") for value in values]
        return {"offset": 0, "x": "step", "ready": 1.0, "series": series}


_LINE = (
    "id", "name", "path", "kind", "status", "words", "algorithm", "model", "seed", "steps_done", "steps_total",
    "started", "heartbeat", "alerts", "spark", "spark_name",
)  # fmt: skip


def _few(events: Any) -> Any:
    return events | {"rows": events["rows"][:EVENTS]}


def _steps(source: Source, kind: Table) -> list[int]:
    try:
        return source.steps(kind)
    except (OSError, OneloopError):
        return []


def _rollouts(source: Source, step: int) -> Any:
    """The completions with the highest and the lowest rewards, the highest first, then those without one."""
    answer = tables.rollouts(source, step, TEXT, episodes=True)
    rows = sorted(answer["rows"], key=lambda row: -_reward(row))
    kept = rows if len(rows) <= ROWS_SHOWN else _ends([row for row in rows if row["reward"] is not None], rows)
    for row in kept:
        row["rest"] = _rest(source, step, row) if row["cut"] else None
    return answer | {"rows": kept}


def _ends(scored: list[Any], rows: list[Any]) -> list[Any]:
    scored = scored or rows
    half = ROWS_SHOWN // 2
    return scored if len(scored) <= ROWS_SHOWN else scored[:half] + scored[-half:]


def _reward(row: Any) -> float:
    return -inf if row["reward"] is None else row["reward"]


def _rest(source: Source, step: int, row: Any) -> dict[str, int]:
    """Characters of each text that are not held."""
    whole = tables.rollout(source, step, row["row"])
    return {name: max(len(whole[name]) - TEXT, 0) for name in ("prompt", "completion")}


_TABLES: dict[Table, Callable[[Source, int], Any]] = {
    "rollouts": _rollouts,
    "pairs": tables.pairs,
    "ratios": lambda source, step: tables.ratios(source, step, by_token=True),
    "tokens": tables.tokens,
}
