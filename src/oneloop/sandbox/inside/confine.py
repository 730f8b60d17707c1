"""What a fork of the starter does to itself before it runs what nobody trusts."""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

READY = b"ready"


def prepared(
    role: Callable[[socket.socket], None],
    limits: dict[str, Any],
    channel: int,
    standard: tuple[int, int, int],
    told: int,
) -> Callable[[], None]:
    """Confine this process. Never returns where that fails: the reason goes to `told`."""
    try:
        for place, descriptor in enumerate(standard):
            os.dup2(descriptor, place)
        os.dup2(channel, 3)
        os.dup2(told, 4)
        os.closerange(5, 1 << 20)
        fresh_streams()
        os.setsid()
        os.umask(0o077)
        limit(limits)
        os.write(4, READY)
        os.close(4)
    except BaseException as error:
        os.write(told, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    return lambda: role(socket.socket(fileno=3))


def fresh_streams() -> None:
    """As at the start of an interpreter; those of the starter belong to other files."""
    for place, (name, mode, errors) in enumerate(
        (("stdin", "r", "surrogateescape"), ("stdout", "w", "surrogateescape"), ("stderr", "w", "backslashreplace"))
    ):
        stream = open(place, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def limit(limits: dict[str, Any]) -> None:
    seconds = math.ceil(limits["seconds"]) + 1
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits["memory_mb"] << 20),
        (resource.RLIMIT_FSIZE, limits["scratch_mb"] << 20),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
