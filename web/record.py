"""Cut a demo's runs down to what ships with the package: `python web/record.py runs/demo`, after `oneloop demo`.

A few steps of three methods, at most 1 MB, without anything that names the machine that trained them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from oneloop.lab.catalog import DEMO
from oneloop.lab.source import TABLES
from oneloop.record.reader import read_run
from oneloop.record.steps import StepTables

RUNS = ("ppo", "grpo", "dpo")
STEPS, GROUPS = 6, 12
"""Of each table: steps, evenly spread, and groups of each."""
MOST = 10**6
"""Bytes of everything."""
APPENDED = ("metrics.jsonl", "events.jsonl", "eval.jsonl", "memory.jsonl", "ratios.jsonl", "objective.txt", "plan.json")
OF_THE_MACHINE = {"pid": 0, "host": "recorded", "argv": ["oneloop", "demo"], "machine": {}}


def main() -> None:
    source = Path(sys.argv[1])
    shutil.rmtree(DEMO, ignore_errors=True)
    for name in RUNS:
        cut(source, name, DEMO / name)
    size = sum(file.stat().st_size for file in DEMO.rglob("*") if file.is_file())
    print(f"{DEMO}: {size:,} bytes")
    if size > MOST:
        sys.exit(f"that is more than {MOST:,}; fewer STEPS or GROUPS")


def cut(source: Path, name: str, out: Path) -> None:
    """One run: every line, and a few steps of its tables."""
    out.mkdir(parents=True)
    record = read_run(source / name)
    for file in APPENDED:
        if (record.path / file).exists():
            shutil.copyfile(record.path / file, out / file)
    info = json.dumps(record.info | OF_THE_MACHINE, indent=1)
    (out / "run.json").write_text(info.replace(str(source), "runs/demo"), encoding="utf-8")
    config = (record.path / "config.toml").read_text(encoding="utf-8")
    (out / "config.toml").write_text(config.replace(str(source), "runs/demo"), encoding="utf-8")
    for kind in TABLES:
        tables = record.tables(kind)
        for step in spread(tables.steps()):
            table = tables.table(step)
            column = "pair" if kind == "pairs" else "group"
            kept = sorted(set(table.column(column).to_pylist()))[:GROUPS]
            rows = [place for place, group in enumerate(table.column(column).to_pylist()) if group in kept]
            StepTables(out / kind).write(step, table.take(rows))


def spread(steps: list[int]) -> list[int]:
    """The first, the last, and some between."""
    if len(steps) <= STEPS:
        return steps
    return [steps[place * (len(steps) - 1) // (STEPS - 1)] for place in range(STEPS)]


if __name__ == "__main__":
    main()
