"""Run a Python text in a confined process of one tier, and see what came of it."""

import json
import socket
from dataclasses import dataclass
from textwrap import dedent
from time import monotonic
from typing import Any

from oneloop.sandbox.confined import Exit, begin
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.limits import Limits

ROLE = "oneloop.sandbox.inside.text"


@dataclass
class Ran:
    answer: Any
    """What the text gave to `say`, None if nothing."""
    exit: Exit
    stdout: str
    stderr: str
    seconds: float


PRELUDE = """
def say(value):
    import json
    channel.sendall(json.dumps(value).encode())
    channel.close()
def error(attempt, *arguments, **keywords):
    "The name of what it raises, None if nothing."
    try:
        attempt(*arguments, **keywords)
    except Exception as found:
        return next(kind.__name__ for kind in type(found).__mro__ if kind.__base__ is Exception)
"""


def confined(
    starter: Starter, text: str, limits: Limits | None = None, stdin: bytes | None = None, seconds: float = 20.0
) -> Ran:
    began = monotonic()
    with begin(starter, ROLE, limits or Limits(), stdin) as run:
        run.channel.sendall((PRELUDE + dedent(text)).encode())
        run.channel.shutdown(socket.SHUT_WR)
        exit = run.wait(monotonic() + seconds)
        answer = b""
        while piece := run.channel.recv(1 << 16):
            answer += piece
        printed = run.stdout().decode(errors="replace"), run.stderr().decode(errors="replace")
    return Ran(json.loads(answer) if answer else None, exit, *printed, monotonic() - began)
