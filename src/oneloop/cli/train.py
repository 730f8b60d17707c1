"""`oneloop train ALGORITHM`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

from oneloop.cli.parse import parse_run
from oneloop.config import Run
from oneloop.errors import OneloopError, OutOfMemory
from oneloop.methods import LEARNS_FROM
from oneloop.parallel.launch import Ranks, joined, place
from oneloop.recipes.preflight import preflight
from oneloop.recipes.signals import at_once

if TYPE_CHECKING:
    import oneloop.recipes.watched

USAGE = "oneloop train ALGORITHM --model M --data D [--reward F] --steps N --out DIR"


def main(arguments: list[str]) -> int:
    with at_once():
        return _main(arguments)


def _main(arguments: list[str]) -> int:
    run = _parsed(arguments)
    if run.ranks > 1 and place() is None:
        from oneloop.cli.ranks import on_this_machine

        return on_this_machine(run.ranks, arguments)
    with (
        joined(run.ranks, run.device, run.rank_timeout) as ranks,
        closing(preflight(run, LEARNS_FROM[run.algorithm], world=ranks.world)) as inputs,
    ):
        from oneloop.recipes.execute import execute

        with _watching(run, ranks) as watcher, advised(run):
            execute(run, watcher, inputs=inputs, ranks=ranks)
    return 0


def _parsed(arguments: list[str]) -> Run:
    """The same on every rank, so that only the first says what is wrong with it."""
    found = place()
    if found is None or found.rank == 0:
        return parse_run(arguments, USAGE)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return parse_run(arguments, USAGE)
    except OneloopError as error:
        error.told = True
        raise


@contextmanager
def advised(run: Run) -> Iterator[None]:
    """Memory that runs out is told with what to change."""
    try:
        yield
    except OutOfMemory as error:
        from oneloop.plan.spare import advice

        error.add_note(advice(run))
        raise


@contextmanager
def _watching(run: Run, ranks: Ranks) -> Iterator[oneloop.recipes.watched.Observer]:
    if ranks.first:
        from oneloop.cli.terminal import terminal

        with terminal(run.steps) as watcher:
            yield watcher
    else:
        from oneloop.recipes.watched import Silent

        yield Silent()
