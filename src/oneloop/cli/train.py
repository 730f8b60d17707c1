"""`oneloop train ALGORITHM`."""

from __future__ import annotations

from contextlib import closing

from oneloop.cli.parse import parse_run
from oneloop.methods import LEARNS_FROM
from oneloop.recipes.preflight import preflight

USAGE = "oneloop train ALGORITHM --model M --data D [--reward F] --steps N --out DIR"


def main(arguments: list[str]) -> int:
    run = parse_run(arguments, USAGE)
    with closing(preflight(run, LEARNS_FROM[run.algorithm])) as inputs:
        from oneloop.cli.terminal import terminal
        from oneloop.recipes.execute import execute

        with terminal(run.steps) as watcher:
            execute(run, watcher, inputs=inputs)
    return 0
