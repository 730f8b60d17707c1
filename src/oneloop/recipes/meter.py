"""What this process says about its memory, in bytes, and what malloc is told to do with it."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from oneloop.ports import SingleProcess, World
from oneloop.record.writer import RunFolder

SMALL = 64 * 2**20
"""Bytes of a parameter from which its temporary copies matter more than the time to get new pages."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Names of settings in glibc's malloc.h."""
PHASES = ("rollout", "prepare", "update", "evaluation")
"""Phases of a step that its line tells."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes of this process in memory now; where the kernel does not tell, the most so far."""
    return _status("VmRSS") or _most_by_getrusage()


def peak_resident() -> int:
    """Most bytes of this process in memory so far, or since `forget_peak`."""
    return _status("VmHWM") or _most_by_getrusage()


def forget_peak() -> bool:
    """Let the peak count from now on; False where the kernel does not permit it."""
    with suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")
        return True
    return False


def keeps_freed(largest: int, sparing: bool) -> bool:
    """Whether `settle_malloc` has freed memory kept, where the largest parameter has this many bytes."""
    return largest <= SMALL and not sparing


def settle_malloc(largest: int, *, sparing: bool = False) -> None:
    """Tell glibc's malloc what to do with tensors that are freed, by the bytes of the largest parameter.

    A small one: keep everything, instead of asking the kernel for zeroed pages again; a training step at 12 M
    parameters takes a fifth less time than with blocks of a MiB given back at once. A large one, which means a large
    vocabulary: give blocks back, so that none of its size lies about unused; DPO with a vocabulary of 152k takes a
    quarter less memory. The environment's MALLOC_... win.

    Args:
        sparing: give blocks back in any case. What recomputed layers free lies between what they keep, and the holes
            came to 1.75 times what the passes hold.
    """
    libc = _glibc()
    if libc is None:
        return
    if keeps_freed(largest, sparing):
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)
    else:
        libc.mallopt(_MMAP_MAX, 2**16)
        libc.mallopt(_TRIM_THRESHOLD, 2**20)
        libc.mallopt(_MMAP_THRESHOLD, 2**20)


def release_malloc() -> None:
    """Undo `settle_malloc` where the process goes on with something else: glibc's documented defaults, and what is
    free goes back to the kernel. (Its thresholds adapt by themselves only in a process that never set one.)
    """
    libc = _glibc()
    if libc is None:
        return
    libc.mallopt(_MMAP_MAX, 2**16)
    libc.mallopt(_TRIM_THRESHOLD, 2**17)
    libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """None where there is another C library, or where the environment has decided."""
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    return ctypes.CDLL(None)


class Meter:
    """Hook: one line of memory.jsonl after every step, with the peak of each phase where the system tells it.

    Args:
        start: resident bytes just before the models were loaded.
        world: of several ranks the first writes its own bytes, and the largest peak of all.
    """

    def __init__(
        self,
        folder: RunFolder,
        device: str,
        start: int,
        world: World = SingleProcess(),  # noqa: B008
    ) -> None:
        self._folder, self._start, self._world = folder, start, world
        self._cuda = device if device.startswith("cuda") else ""
        self._phase = ""
        self._peaks: dict[str, int] = {}
        self._most: dict[str, int] = {}

    @classmethod
    def begin(
        cls,
        folder: RunFolder,
        device: str,
        world: World = SingleProcess(),  # noqa: B008
    ) -> Meter:
        """To be called just before models are loaded: the peak counts from here."""
        forget_peak()
        return cls(folder, device, resident(), world)

    def phase(self, name: str) -> None:
        """A phase begins, and the one before is over."""
        self._close()
        self._phase = name

    def __call__(self, step: int, algorithm: object) -> None:
        self._close()
        row = {"start_rss": self._start, "rss": resident(), "peak_rss": self._most["peak_rss"]}
        if self._cuda:
            row |= {"cuda_allocated": torch.cuda.memory_allocated(self._cuda), "cuda_peak": self._most["cuda_peak"]}
        if self._world.ranks > 1:
            most = self._world.sum({f"most_{name}/max": float(value) for name, value in self._most.items()})
            row |= {name.removesuffix("/max"): int(value) for name, value in most.items()}
        phases = {f"phase/{name}": self._peaks[name] for name in PHASES if name in self._peaks}
        self._phase, self._peaks = "", {}
        self._folder.memory(step, row | phases)

    def _close(self) -> None:
        """Note the peak since the phase began, and count from now on. On a GPU a phase has that device's memory."""
        found = {"peak_rss": peak_resident()}
        told = forget_peak()
        if self._cuda:
            found["cuda_peak"] = torch.cuda.max_memory_allocated(self._cuda)
            torch.cuda.reset_peak_memory_stats(self._cuda)
        for name, value in found.items():
            self._most[name] = max(value, self._most.get(name, 0))
        if told or self._cuda:
            peak = found.get("cuda_peak", found["peak_rss"])
            self._peaks[self._phase] = max(peak, self._peaks.get(self._phase, 0))


def _status(field: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def _most_by_getrusage() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
