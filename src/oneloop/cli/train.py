"""`oneloop train ALGORITHM`."""

from __future__ import annotations

from oneloop.cli.parse import parse_run

USAGE = "oneloop train ALGORITHM --model M --data D [--reward F] --steps N --out DIR"


def main(arguments: list[str]) -> int:
    run = parse_run(arguments, USAGE)
    from oneloop.cli.terminal import terminal
    from oneloop.recipes.execute import execute

    with terminal(run.steps) as watcher:
        execute(run, watcher)
    return 0
