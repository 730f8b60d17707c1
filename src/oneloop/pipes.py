"""Messages between two processes over pipes, as length and JSON, and a child that does not outlive its parent."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

HEAD = 8
"""Bytes before each message that say how long it is."""
_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of linux/prctl.h."""


def send(descriptor: int, message: Mapping[str, Any]) -> None:
    """Waits until all of it is in the pipe."""
    body = json.dumps(message).encode()
    data = memoryview(len(body).to_bytes(HEAD) + body)
    while data:
        data = data[os.write(descriptor, data) :]


def bodies(descriptor: int) -> Iterator[bytes]:
    """Messages as they come, until the other end is closed."""
    with suppress(OSError):
        while len(head := read(descriptor, HEAD)) == HEAD:
            yield read(descriptor, int.from_bytes(head))


def read(descriptor: int, count: int) -> bytes:
    """So many bytes; fewer at the end."""
    data = bytearray()
    while len(data) < count and (piece := os.read(descriptor, count - len(data))):
        data += piece
    return bytes(data)


def die_with(parent: int, signum: int) -> bool:
    """Where the kernel offers it, get this signal when the parent ends in whatever way, also while C code runs here.

    Returns: whether the parent is still there.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signum)
    return os.getppid() == parent
