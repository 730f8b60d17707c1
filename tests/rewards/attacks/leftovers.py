"""What is left of gradings: processes, mounts, files, descriptors."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Whatever a grandchild leaves running becomes a child of this process, and so is seen."""
    ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def own_temporaries() -> Iterator[None]:
    """Temporary files go to a folder of this process: sandboxes of others are not among what it left."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o1777)
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def descendants(pid: int) -> dict[int, str]:
    """All of them, with their command lines."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(name))
    found, waiting = dict[int, str](), [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            waiting.append(child)
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
            except OSError:
                found[child] = "gone"
    return found


def state() -> dict[str, int]:
    """Counts that must be the same before and after."""
    temporary = Path(tempfile.gettempdir())
    return {
        "processes": len(descendants(os.getpid())),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "folders": sum(1 for kind in ("sandbox", "probe") for _ in temporary.glob(f"oneloop-{kind}-*")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def left(before: dict[str, int], patience: float = 5.0) -> list[str]:
    """What is more than before, once that long has been waited for it to go."""
    end = time.monotonic() + patience
    while True:
        more = [f"{state()[name] - count} {name} left" for name, count in before.items() if state()[name] > count]
        if not more or time.monotonic() > end:
            return more
        time.sleep(0.1)
