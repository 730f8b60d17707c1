"""`oneloop report RUN`."""

from __future__ import annotations

from pathlib import Path

from oneloop.errors import ConfigError

USAGE = "usage: oneloop report RUN    write RUN/report.html: curves, completions and alerts of a run"


def main(arguments: list[str]) -> int:
    if any(word in ("-h", "--help") for word in arguments):
        print(USAGE)
        return 0
    if len(arguments) != 1:
        raise ConfigError(f"report takes one run folder, got {len(arguments)} words.\n{USAGE}")
    from oneloop.lab.report import report_run

    print(report_run(Path(arguments[0])))
    return 0
