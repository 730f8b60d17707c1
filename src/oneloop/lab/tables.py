"""Routes about single steps: completions, ratios, tokens, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import pyarrow
from pyarrow import compute as _compute
from pyarrow import types

from oneloop.lab.answers import Refusal
from oneloop.lab.episodes import episode, policys, turns_of
from oneloop.lab.lines import BLOCK, parsed, tail
from oneloop.lab.own import FILES, LACKS, OwnRun
from oneloop.lab.source import TABLES, Source, Table

compute: Any = _compute  # its functions are made at run time, where no type checker sees them
SHORT = 300
"""Characters of a prompt or a completion in a list."""
SEARCH = 1.0
"""Seconds in which the same prompt is looked for in other steps."""
PLAIN = (
    "step", "prompt", "completion", "reward", "advantage", "group", "sample", "length", "stop", "kept", "version",
    "changes",
)  # fmt: skip
EPISODES = ("turns", "error")
"""Words of runs in an environment, whose tables have both."""
ANSWERS = ("answer", "extracted", "extracted_answer", "prediction")
TARGETS = ("target", "ground_truth", "gts", "solution", "expected")
"""Columns of words that rewards add, by the names that are usual for them."""
EDGES: list[float | None] = [0.0, *(place / 100 for place in range(50, 151)), None]
"""Edges of the ratios' bins; None: infinity. Every usual ε is on one of them."""
BINS = len(EDGES) - 1


def facts(source: Source) -> dict[Table, dict[str, Any]]:
    """Which steps each kind of table has."""
    return {name: facts_of(source.steps(name)) for name in TABLES}


def facts_of(steps: Sequence[int]) -> dict[str, Any]:
    """How many steps, and which: stretches of evenly spaced ones as first, last and how far apart they lie.

    >>> facts_of([0, 2, 4, 9])
    {'count': 4, 'spans': [[0, 4, 2], [9, 9, 1]]}
    """
    spans: list[list[int]] = []
    for step in steps:
        if spans:
            first, last, apart = spans[-1]
            if first == last or step - last == apart:
                spans[-1] = [first, step, step - last]
                continue
        spans.append([step, step, 1])
    return {"count": len(steps), "spans": spans}


def rollouts(source: Source, step: int | None, short: int = SHORT, *, episodes: bool = False) -> dict[str, Any]:
    """Every completion of a step, its texts cut after so many characters; with `episodes` turn by turn too."""
    at = _at(source, "rollouts", step)
    table = _read(source, "rollouts", at)
    return {"step": at, "columns": _parts(table), "rows": _rows(table, short, episodes=episodes)}


def rollout(source: Source, step: int | None, row: int) -> dict[str, Any]:
    """One completion, whole."""
    at = _at(source, "rollouts", step)
    table = _read(source, "rollouts", at)
    if row >= len(table):
        raise Refusal(404, f"step {at + 1} has {len(table)} completions, no number {row}", "row=0")
    return {"step": at, "columns": _parts(table), **_rows(table.slice(row, 1), None, episodes=True)[0], "row": row}


def same_prompt(source: Source, step: int | None, row: int, limit: int) -> dict[str, Any]:
    """Completions of the same prompt in this step and in others, the nearest ones first, as far as a second goes."""
    at = _at(source, "rollouts", step)
    asked = _read(source, "rollouts", at, ["prompt"])
    if row >= len(asked):
        raise Refusal(404, f"step {at + 1} has {len(asked)} completions, no number {row}", "row=0")
    prompt = asked.column("prompt")[row]
    steps = sorted(source.steps("rollouts"), key=lambda other: abs(other - at))
    found, searched, end = [], 0, monotonic() + SEARCH
    for other in steps:
        if len(found) >= limit or (searched and monotonic() > end):
            break
        searched += 1
        try:
            prompts = source.table("rollouts", other, ["prompt"])
            if compute.any(compute.equal(prompts.column("prompt"), prompt)).as_py():
                table = source.table("rollouts", other)
                same = compute.indices_nonzero(compute.equal(table.column("prompt"), prompt)).to_pylist()
                rows = _rows(table.take(same), SHORT)
                found += [{"step": other, **one, "row": place} for one, place in zip(rows, same, strict=True)]
        except (KeyError, OSError, ValueError):
            continue  # thinned out in this moment, or damaged: that step says so itself
    found.sort(key=lambda one: (one["step"], one["row"]))
    return {"step": at, "prompt": prompt.as_py(), "rows": found[:limit], "searched": searched, "steps": len(steps)}


def tokens(source: Source, step: int | None) -> dict[str, Any]:
    at = _at(source, "tokens", step)
    return {"step": at, "rows": _plain(_read(source, "tokens", at))}


def pairs(source: Source, step: int | None) -> dict[str, Any]:
    at = _at(source, "pairs", step)
    return {"step": at, "rows": _plain(_read(source, "pairs", at))}


def ratios(source: Source, step: int | None, *, by_token: bool) -> dict[str, Any]:
    """The histogram of a step's ratios, and each token's where it was kept and is asked for."""
    if not isinstance(source, OwnRun):
        raise Refusal(404, f"runs of {source.kind} have no ratios", "a run of oneloop: oneloop train grpo --epochs 2")
    steps = source.steps("ratios")
    at = _at(source, "ratios", step) if by_token and steps else _at_in_lines(source, step)
    line = _line(source, at) or {}
    answer = {
        "step": at,
        "updates": line.get("updates"),
        "epsilon": line.get("epsilon"),
        "edges": EDGES,
        **{sign: _counts(line.get(sign)) for sign in ("positive", "negative")},
        "zero": _counts(line.get("zero")),
        "rows": None,
    }
    if by_token and at in steps:
        answer["rows"] = _plain(_read(source, "ratios", at))
    return answer


def _at(source: Source, name: Table, step: int | None) -> int:
    """The step, the last one where none is asked for. Raises: Refusal where it has no table."""
    steps = source.steps(name)
    if not steps:
        if not source.folder.exists():
            raise Refusal(410, "the run's folder is not there any more", "look at the list of runs")
        words = LACKS[name] if isinstance(source, OwnRun) else f"runs of {source.kind} have no {name}"
        raise Refusal(404, f"this run has {words}", "oneloop lab --demo shows a run that has them")
    at = steps[-1] if step is None else step
    if at not in steps:
        near = min(steps, key=lambda one: abs(one - at))
        words = f"there are {len(steps)} from step {steps[0] + 1} to {steps[-1] + 1}"
        raise Refusal(404, f"step {at + 1} has no {name}; {words}", f"step={near}")
    return at


def _at_in_lines(source: OwnRun, step: int | None) -> int:
    """The same for ratios.jsonl, which has a line for every step."""
    try:
        with source.folder.open(FILES["ratios"]) as file:
            last = tail(file, BLOCK)
            file.seek(0)
            first = parsed(file.readline())
    except FileNotFoundError:
        first = last = None
    if not first or not last or not isinstance(first.get("step"), int) or not isinstance(last.get("step"), int):
        raise Refusal(404, f"this run has {LACKS['ratios']}", "oneloop lab --demo shows a run that has them")
    low, high = first["step"], last["step"]
    at = high if step is None else step
    if not low <= at <= high:
        raise Refusal(404, f"step {at + 1} has no ratios; there are steps {low + 1} to {high + 1}", f"step={high}")
    return at


def _line(source: OwnRun, step: int) -> dict[str, Any] | None:
    """The line of a step, by bisection: steps rise along the file."""
    try:
        with source.folder.open(FILES["ratios"]) as file:
            low, high = 0, file.seek(0, 2)
            while low < high:
                middle = (low + high) // 2
                file.seek(middle)
                start = middle + (len(file.readline()) if middle else 0)
                file.seek(start)
                row = parsed(line) if (line := file.readline()).endswith(b"\n") else None
                if row is None or not isinstance(row.get("step"), int) or row["step"] > step:
                    high = middle
                elif row["step"] == step:
                    return row
                else:
                    low = start + len(line)
            file.seek(low)
            row = parsed(file.readline())
            return row if row and row.get("step") == step else None
    except FileNotFoundError:
        return None


def _counts(given: Any) -> list[list[int]]:
    """Counts by bin for each update; a sparse one names its bins."""
    return [_dense(update) for update in given] if isinstance(given, list) else []


def _dense(update: Any) -> list[int]:
    if not isinstance(update, dict):
        return update
    counts = [0] * BINS
    for place, count in update.items():
        if place.isdecimal() and int(place) < BINS:
            counts[int(place)] = count
    return counts


def _read(source: Source, name: Table, step: int, columns: Sequence[str] | None = None) -> pyarrow.Table:
    try:
        return source.table(name, step, columns)
    except (KeyError, FileNotFoundError):
        raise Refusal(410, f"the {name} of step {step + 1} are not there any more", "reload the page") from None


def _plain(table: pyarrow.Table) -> list[dict[str, Any]]:
    """Rows as plain values. Numbers are rounded to the digits that their type has, which is a third of the bytes."""
    rows = table.to_pylist()
    digits = {
        field.name: ".5g" if "halffloat" in str(field.type) else ".8g"
        for field in table.schema
        if "float" in str(field.type)
    }
    for row in rows:
        for name, form in digits.items():
            row[name] = _rounded(row[name], form)
    return rows


def _rounded(value: Any, form: str) -> Any:
    if isinstance(value, list):
        return [_rounded(item, form) for item in value]
    return None if value is None else float(format(float(value), form))


def _parts(table: pyarrow.Table) -> list[str]:
    return [field.name for field in table.schema if field.name not in PLAIN and types.is_floating(field.type)]


def _rows(table: pyarrow.Table, short: int | None, *, episodes: bool = False) -> list[dict[str, Any]]:
    parts = _parts(table)
    words = [field.name for field in table.schema if field.name not in PLAIN and types.is_string(field.type)]
    played = EPISODES if "turns" in words else ()
    extras = [name for name in words if name not in played]
    columns = {name: table.column(name) for name in table.column_names}
    cut = [False] * len(table)
    for name in ("prompt", "completion"):
        if short is not None and name in columns:
            long = compute.greater(compute.utf8_length(columns[name]), short).to_pylist()
            cut = [a or bool(b) for a, b in zip(cut, long, strict=True)]
            columns[name] = compute.utf8_slice_codeunits(columns[name], 0, short)
    values = {name: column.to_pylist() for name, column in columns.items()}
    nothing = [None] * len(table)
    said = [turns_of(column) for column in (values["turns"] if played else nothing)]
    get = lambda name: values.get(name, nothing)  # noqa: E731
    return [
        {
            "row": row,
            "group": get("group")[row],
            "sample": get("sample")[row],
            "prompt": get("prompt")[row],
            "completion": get("completion")[row],
            "cut": cut[row],
            "rewards": {name: values[name][row] for name in parts},
            "reward": get("reward")[row],
            "advantage": get("advantage")[row],
            "length": get("length")[row],
            "stop": get("stop")[row],
            "kept": get("kept")[row] is not False,
            "answer": _first(values, ANSWERS, row),
            "target": _first(values, TARGETS, row),
            "extras": {name: values[name][row] for name in extras}
            | (_damaged(values["turns"][row], said[row]) if played else {}),
            "turns": None if (turns := said[row]) is None else policys(turns),
            "episode": episode(turns, short) if episodes and turns else None,
            "error": get("error")[row] if played else None,
        }
        for row in range(len(table))
    ]


def _damaged(column: str | None, turns: Any) -> dict[str, str]:
    """Turns that cannot be read are shown as they stand."""
    return {"turns": column} if column and column != "[]" and turns is None else {}


def _first(values: dict[str, list[Any]], names: Sequence[str], row: int) -> str | None:
    """Of the columns of words that are there, the first that has something to say."""
    for name in names:
        for column in (name, f"extra/{name}"):
            value = values[column][row] if column in values else None
            if isinstance(value, str):
                return value
    return None
