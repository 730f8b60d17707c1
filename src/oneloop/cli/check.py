"""`oneloop check [ALGORITHM]`: data, tokens and rewards before a weight is loaded."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from oneloop.cli.parse import parse_run, taken
from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.recipes.inferred import inferred
from oneloop.toml import read_recipe

USAGE = "oneloop check [ALGORITHM] --model M --data D [--reward R]"
HELP = """usage: oneloop check [ALGORITHM] [the flags of `oneloop train`]
  ALGORITHM   left out, the usual one for the columns of --data
  --row N     begin with this row, from 1
  --rows K    rows to show, and to call the reward on: 3

exit codes: 0 training would begin; 2 it would refuse, or stop at a reward
"""
REFUSED = 2


def main(arguments: list[str]) -> int:
    rest = list(arguments)
    if any(word in ("-h", "--help") for word in rest):
        print(HELP)
    first, count = _whole("--row", taken(rest, "--row"), 1), _whole("--rows", taken(rest, "--rows"), 3)
    run, why = _run(rest)
    from oneloop.cli.checked import report
    from oneloop.recipes.check import check

    found = check(run, first, count)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a row may hold what the terminal cannot write
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    for line in report(found, why):
        console.print(line, soft_wrap=True)
    return REFUSED if found.refused else 0


def _run(arguments: list[str]) -> tuple[Run, str]:
    """The run, and why it is of this algorithm; "" where that was said."""
    if _named(arguments):
        return parse_run(arguments, USAGE, "oneloop check"), ""
    name, why = inferred(parse_run(["grpo", *arguments], USAGE, "oneloop check"))
    return parse_run([name, *arguments], USAGE, "oneloop check"), why


def _named(arguments: list[str]) -> bool:
    """Whether the command or its recipe names an algorithm."""
    from pathlib import Path

    rest = list(arguments)
    recipe = taken(rest, "--recipe")
    return bool(rest and not rest[0].startswith("-")) or bool(recipe and "algorithm" in read_recipe(Path(recipe)))


def _whole(flag: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"{flag} {text}: wanted a positive whole number, such as {flag} {default}")
    return int(text)
