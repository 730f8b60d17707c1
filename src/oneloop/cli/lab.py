"""`oneloop lab [RUNS...]`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from oneloop.cli.parse import parse
from oneloop.errors import ConfigError

MODEST = 10
"""Niceness of the server: it stands back where a run on the same machine wants a core."""


@dataclass(frozen=True, kw_only=True)
class LabFlags:
    """A page about runs on this machine, read only: how the methods work, live, and what every run did."""

    runs: Annotated[tuple[str, ...], Positional] = ()
    """Run folders, folders of runs, or runs of TRL or verl; left out, runs/. New runs appear by themselves."""
    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own asks for a token."""
    port: int = 0
    """Port to listen on; 0 takes 8765 or the next free one."""
    token: str = ""
    """What readers must bring, at least 16 characters; left out, a random one where one is needed."""
    demo: bool = False
    """Show the small recorded runs that come with oneloop too."""
    no_browser: bool = False
    """Print the address and open nothing."""


def main(arguments: list[str]) -> int:
    flags = parse(LabFlags, arguments, prog="oneloop lab")
    _check(flags)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f'the lab needs {error.name}, which is not installed. Fix: pip install "oneloop[lab]"'
        ) from error
    from oneloop.lab.catalog import DEMO, roots
    from oneloop.lab.serve import serve

    folders = [*([] if flags.demo and not flags.runs else roots(flags.runs)), *([DEMO] if flags.demo else [])]
    serve(
        folders,
        host=flags.host,
        port=flags.port or None,
        token=flags.token or None,
        demo=DEMO if flags.demo else None,
        opened=lambda address: _opened(address, browser=not flags.no_browser),
    )
    return 0


def _check(flags: LabFlags) -> None:
    if not 0 <= flags.port < 65536:
        raise ConfigError(f"--port {flags.port} is no port. Fix: --port 8765")
    if flags.token and not re.fullmatch(r"[A-Za-z0-9_-]{16,128}", flags.token):
        raise ConfigError("--token needs 16 to 128 letters, digits, - or _. Fix: leave it out, and one is made")


def _opened(address: str, *, browser: bool) -> None:
    print(f"the lab is open at {address}\nstop it with Ctrl-C", flush=True)
    if browser:
        import webbrowser

        webbrowser.open(address)
    os.nice(MODEST)
