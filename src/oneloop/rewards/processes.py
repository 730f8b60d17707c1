"""Every process that a reward function started, also one that left its process group for a session of its own."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep
from uuid import uuid4

ROUNDS, PAUSE = 100, 0.01
"""How often it is looked again for what is left, and seconds between: a process may be about to start another one."""


def new_mark() -> str:
    """A name for an environment variable: children inherit it, and it says whose they are when their parent is gone."""
    return f"ONELOOP_REWARD_{uuid4().hex}"


def kill_all(leader: int, mark: str) -> None:
    """Kill a process, its group, and where there is /proc whatever descends from it or has the mark.

    Out of reach is what has cleared its environment and lost its parent too, as a daemon does on purpose.
    """
    found = _descendants(leader)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for _ in range(ROUNDS):
        found |= _marked(mark)
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        found = set()
        sleep(PAUSE)


def _descendants(leader: int) -> set[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for pid, stat in _read("stat"):
        # pid (name) state parent ...; a name may hold anything
        children[int(stat.rpartition(b")")[2].split()[1])].append(pid)
    found, left = set[int](), [leader]
    while left:
        new = children[left.pop()]
        found.update(new)
        left += new
    return found


def _marked(mark: str) -> set[int]:
    """A zombie has no environment, and is not among them."""
    return {pid for pid, environment in _read("environ") if f"\0{mark}=".encode() in b"\0" + environment}


def _read(file: str) -> Iterator[tuple[int, bytes]]:
    """A file of each process that is there and ours to read."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(folder.name), (folder / file).read_bytes()
