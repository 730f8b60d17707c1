"""System calls that Python 3.11 has no name for, or that a Python built on an old system leaves out."""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)

MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}
PIDFD_OPEN = 434

MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38


def checked(result: int, what: str) -> int:
    """Raises: OSError with the kernel's reason and what was wanted."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call by its number; `what` names it in the error."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return checked(libc.syscall(ctypes.c_long(number), *wide), what)


def prctl(option: int, *arguments: int) -> int:
    wide = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return checked(libc.prctl(option, *wide), f"prctl({option})")


def pidfd_open(pid: int) -> int:
    """A descriptor that can be read from when the process has ended; closed at exec."""
    return syscall("pidfd_open", PIDFD_OPEN, pid, 0)


def memfd(name: str) -> int:
    """A file without a name in any folder, in memory; it can be sealed."""
    return syscall("memfd_create", MEMFD_CREATE[os.uname().machine], name.encode(), MFD_CLOEXEC | MFD_ALLOW_SEALING)
