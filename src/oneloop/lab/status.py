"""How a run stands, in a word and in words: what run.json says, and whether its process is still there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

QUIET = 300.0
"""Seconds without a sign of life, after which that is said. A step of a large model takes minutes."""
LOST = 86400.0
"""The same on another machine, whose processes cannot be looked at, after which the run counts as killed."""


class Status(NamedTuple):
    status: str
    words: str


def status_of(info: Mapping[str, Any], now: float, *, alive: bool | None = None) -> Status:
    """What to say of a run.

    Args:
        info: run.json.
        alive: whether its process is there; None: it is looked for, if it ran on this machine.
    """
    said, failure = str(info.get("status", "unknown")), info.get("failure")
    if said not in ("starting", "running"):
        known = {"finished", "failed", "stopped"}
        words = f"{said}: {failure}" if failure else said
        return Status(said if said in known else "unreadable", words)
    heard = _number(info.get("heartbeat")) or _number(info.get("started"))
    silent = max(now - heard, 0.0) if heard is not None else None
    here = info.get("host") == socket.gethostname()
    alive = _alive(info) if alive is None and here else alive
    if alive is False:
        return Status("killed", f"killed: process {info.get('pid')} is gone; last heard of {ago(silent)}. {RESUME}")
    if alive is None and silent is not None and silent > LOST:
        return Status("killed", f"last heard of {ago(silent)}, on {info.get('host')}; it was probably killed. {RESUME}")
    if silent is not None and silent > QUIET:
        return Status(said, f"{said}, and last heard of {ago(silent)}: a long step, or a process that hangs")
    return Status(said, said if here else f"{said} on {info.get('host')}, last heard of {ago(silent)}")


RESUME = "The same command with --resume goes on from its last checkpoint"


def ago(seconds: float | None) -> str:
    """
    >>> ago(42), ago(600), ago(3 * 86400), ago(None)
    ('42 seconds ago', '10 minutes ago', '3 days ago', 'at an unknown time')
    """
    if seconds is None:
        return "at an unknown time"
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name} ago"
    return f"{seconds:.0f} seconds ago"


def _alive(info: Mapping[str, Any]) -> bool:
    """Whether the run's process lives. A process of its number that began later is another one."""
    pid, started = info.get("pid"), _number(info.get("started"))
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    began = _began(pid)
    return began is None or started is None or began <= started + 60.0


def _began(pid: int) -> float | None:
    """When a process started, seconds since 1970; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        if fields[0] == "Z":
            return float("inf")  # it has ended, and waits for its parent to ask
        boot = next(
            float(line.split()[1]) for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()
            if line.startswith("btime")
        )  # fmt: skip
        return boot + float(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
