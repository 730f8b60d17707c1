"""What this machine has of memory, in bytes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch


def installed(device: str) -> int | None:
    """Bytes that `device` has in all; None for a GPU that this machine does not have.

    On the CPU, a container's limit counts where it is below what the machine has.
    """
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory if torch.cuda.is_available() else None
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_container_limits()])


def _container_limits() -> list[int]:
    """Of cgroups, version 2 and 1; "max" and absurdly large numbers mean none."""
    limits = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limits.append(int(Path(path).read_text(encoding="ascii")))
    return limits
