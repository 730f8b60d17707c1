"""System calls that Python 3.11 has no name for, or that a Python built on an old system leaves out."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

MACHINES = ("x86_64", "aarch64")
_X86 = os.uname().machine == "x86_64"
MEMFD_CREATE = 319 if _X86 else 279
PIVOT_ROOT = 155 if _X86 else 41
CAPSET = 126 if _X86 else 91
SECCOMP = 317 if _X86 else 277
OPEN_TREE, MOVE_MOUNT, PIDFD_OPEN = 428, 429, 434
MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""The same bits for `mount` and for `mount_setattr`."""
_REC, _PRIVATE, _MNT_DETACH = 1 << 14, 1 << 18, 2
PDEATHSIG, DUMPABLE, CAPBSET_DROP, NO_NEW_PRIVS, CAP_AMBIENT = 1, 4, 24, 38, 47
_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: two words of 32 each."""
_MFD_CLOEXEC, _MFD_ALLOW_SEALING = 1, 2
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4


def checked(result: int, what: str) -> int:
    """Raises: OSError with the kernel's reason and what was wanted."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(what: str, number: int, *arguments: Any) -> int:
    """A system call by its number; `what` names it in the error."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return checked(libc.syscall(ctypes.c_long(number), *wide), what)


def prctl(option: int, *arguments: int) -> int:
    wide = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return checked(libc.prctl(option, *wide), f"prctl {option}")


def unshare(flags: int) -> None:
    checked(libc.unshare(flags), f"unshare {flags:#x}")


def setns(descriptor: int, kind: int) -> None:
    checked(libc.setns(descriptor, kind), f"setns {kind:#x}")


def hostname(name: str) -> None:
    checked(libc.sethostname(name.encode(), len(name)), "sethostname")


def pidfd_open(pid: int) -> int:
    """A descriptor that can be read from when the process has ended; closed at exec."""
    return syscall("pidfd_open", PIDFD_OPEN, pid, 0)


def memfd(name: str) -> int:
    """A file without a name in any folder, in memory; it can be sealed."""
    return syscall("memfd_create", MEMFD_CREATE, name.encode(), _MFD_CLOEXEC | _MFD_ALLOW_SEALING)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    done = libc.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode())
    checked(done, f"mount {kind or ''} {target}")


def mounts_stay_here() -> None:
    """What is mounted in this namespace from now on, no other one sees."""
    checked(libc.mount(b"", b"/", None, ctypes.c_ulong(_REC | _PRIVATE), None), "mount --make-rprivate /")


def tree(path: str, flags: int) -> int:
    """A copy of the mounts at and below a path, mounted nowhere yet, with more flags."""
    copy = syscall(f"open_tree {path}", OPEN_TREE, _AT_FDCWD, path.encode(), 1 | os.O_CLOEXEC | _AT_RECURSIVE)
    add_flags(copy, b"", flags, _AT_EMPTY_PATH | _AT_RECURSIVE)
    return copy


def add_flags(folder: int, path: bytes, flags: int, how: int = 0) -> None:
    """Flags of a mount: its own, not those of the file system."""
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    syscall("mount_setattr", MOUNT_SETATTR, folder, path, how, attributes, len(attributes))


def graft(descriptor: int, path: str) -> None:
    """Mount what `tree` gave, and close it."""
    syscall(f"move_mount {path}", MOVE_MOUNT, descriptor, b"", _AT_FDCWD, path.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(descriptor)


def enter_root() -> None:
    """Make the working folder, a mount, the root, and let go of everything else."""
    syscall("pivot_root", PIVOT_ROOT, b".", b".")
    checked(libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def empty_bounding_set() -> None:
    """No capability may ever come back. Does nothing for those who may not, and have none to begin with."""
    capability = 0
    while libc.prctl(CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) == 0:
        capability += 1


def give_up_capabilities() -> None:
    """All of them, from all sets, and what a program with more could give."""
    empty_bounding_set()
    prctl(CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    head, none = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    syscall("capset", CAPSET, head, none)
    prctl(NO_NEW_PRIVS, 1)
