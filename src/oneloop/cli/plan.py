"""`oneloop plan ALGORITHM`."""

from __future__ import annotations

from pathlib import Path

from oneloop.cli.parse import parse_run, taken
from oneloop.errors import ConfigError
from oneloop.record.reader import read_run

USAGE = "oneloop plan ALGORITHM --model M --data D"
HELP = """usage: oneloop plan ALGORITHM [the flags of `oneloop train`]
  --prompt-tokens N   tokens of a prompt; left out, the longest of --data
  --answer-tokens N   tokens of an answer; left out, --max-new-tokens, or the longest of --data
  --available GIB     memory there is for each rank; left out, what the device has
  --against RUN       compare with the memory.jsonl of a run folder, and leave the plan there for its page (plan.json)

exit codes: 0 it fits; 3 it does not
"""
DOES_NOT_FIT = 3


def main(arguments: list[str]) -> int:
    rest = list(arguments)
    if any(word in ("-h", "--help") for word in rest):
        print(HELP)
    prompt, answer = (_whole(flag, taken(rest, flag)) for flag in ("--prompt-tokens", "--answer-tokens"))
    available, against = _gibibytes(taken(rest, "--available")), taken(rest, "--against")
    run = parse_run(rest, USAGE, "oneloop plan")
    if against is not None:
        read_run(Path(against))  # whether it is there is told before the rehearsals
    from oneloop.plan.plan import compare, plan, save, text_of

    planned = plan(run, prompt=prompt, answer=answer, available=available)
    print(text_of(run, planned))
    if against is not None:
        print(compare(planned.bill, Path(against)))
        save(run, planned, Path(against))
    return 0 if planned.fits else DOES_NOT_FIT


def _whole(flag: str, text: str | None) -> int:
    if text is None:
        return 0
    if not text.isdigit() or int(text) == 0:
        raise ConfigError(f"{flag} {text}: wanted a positive whole number of tokens, such as {flag} 256")
    return int(text)


def _gibibytes(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"--available {text}: wanted a positive number of GiB, such as --available 16")
    return value
