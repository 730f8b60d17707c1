"""The better tier: a machine of its own, with no network, no other process, and a root folder in memory.

The starter lives in namespaces of its own, as an id that is not root, with a root folder that holds the Python library
read-only and little else. Each run gets process ids, mounts (scratch, /proc), IPC and a user namespace of its own on
top. Landlock, where there is one, closes once more what is out of reach already, and all of /proc but the links to a
process's own descriptors.
"""

from __future__ import annotations

import os
import re
import signal
from typing import Any

from oneloop.sandbox.inside import kernel, landlock, seccomp
from oneloop.sandbox.inside.kernel import NODEV, NOEXEC, NOSUID, RDONLY
from oneloop.sandbox.inside.python import OTHERS, become, library, time_zones

NOBODY = 65534
_PLACE = "/sandbox"
"""The folder that holds the scratch folder of a run and nothing else: Landlock allows all below it."""
SCRATCH = _PLACE + "/scratch"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/shm": SCRATCH,  # where the C library keeps the locks of multiprocessing, also those of its thread pools
}
_OLDEST = (5, 14)
"""The first Linux that counts the threads of each user namespace by themselves."""
_PLAIN = NOSUID | NODEV | NOEXEC


class Namespaces:
    """Made once, in the starter, which goes on in a child as the first process of its own namespace.

    Raises: OSError with what the kernel refuses.
    """

    counts_threads = True
    keep: frozenset[int] = frozenset()

    def __init__(self) -> None:
        release = os.uname().release
        if tuple(int(part) for part in re.findall(r"\d+", release)[:2]) < _OLDEST:
            raise OSError(f"Linux {release} is older than {_OLDEST[0]}.{_OLDEST[1]}")
        if os.geteuid() == 0 and _own_mounts():  # it is root who may enter the folder of the interpreter
            _new_root()
            _become_nobody()
            _new_namespaces()
        else:
            _become_nobody()
            _new_namespaces()
            _new_root()
        _go_on_as_first_process()
        self._own = os.open("/proc/thread-self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._filter = seccomp.compiled(pid=1, guarded=True)
        self._rules = None
        if landlock.version():
            paths = dict.fromkeys((*library(), *time_zones()), landlock.READ)
            paths |= dict.fromkeys(_DEVICES, landlock.USE) | {_PLACE: landlock.CHANGE}
            self._rules = landlock.ruleset(paths)
            self.keep = frozenset({self._rules})

    def fork(self) -> int:
        kernel.unshare(kernel.NEWPID)
        pid = os.fork()
        if pid:
            kernel.setns(self._own, kernel.NEWPID)
        return pid

    def shut(self, limits: dict[str, Any]) -> str:
        """Give up everything, for good. Returns: the scratch folder."""
        itself = os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
        kernel.unshare(kernel.NEWNS | kernel.NEWIPC)
        try:
            kernel.mount("proc", "/proc", "proc", _PLAIN | RDONLY, "subset=pid,hidepid=invisible")
        except OSError:  # a machine that hides parts of its own /proc, as a container does, gives out no new one
            kernel.mount("none", "/proc", "tmpfs", _PLAIN | RDONLY, "size=4k,nr_inodes=1")
        inodes = limits["files"] + 1
        kernel.mount("none", SCRATCH, "tmpfs", _PLAIN, f"size={limits['scratch_mb']}m,nr_inodes={inodes},mode=700")
        _map_itself(kernel.NEWUSER, itself)  # its mounts belong to the outer one: no right in here could change them
        os.close(itself)
        return SCRATCH

    def seal(self) -> None:
        if self._rules is not None:
            landlock.restrict(self._rules)
        seccomp.install(self._filter)

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def look(self, pid: int, limits: dict[str, Any]) -> str | None:
        """The kernel holds all limits by itself."""

    def reaped(self, pid: int) -> None:
        """What was mounted is gone with the process."""

    def tidy(self) -> bool:
        return False

    def leave(self) -> None:
        pass


def _own_mounts() -> bool:
    """False in a container whose root may not mount: there a user namespace may be allowed yet."""
    try:
        kernel.unshare(kernel.NEWNS)
    except PermissionError:
        return False
    return True


def _become_nobody() -> None:
    if os.geteuid() == 0:
        become(NOBODY)
        kernel.prctl(kernel.DUMPABLE, 1)  # else its own files in /proc belong to root


def _new_namespaces() -> None:
    """Of every kind; one user, who is not root, and has all capabilities over them."""
    kinds = kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS
    itself = os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
    _map_itself(kernel.NEWUSER | kinds, itself)
    os.close(itself)
    kernel.hostname("sandbox")


def _map_itself(kinds: int, itself: int) -> None:
    """Namespaces with one user: itself, with the number it has.

    Args:
        itself: its folder in a /proc that can be written.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kinds)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        file = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=itself)
        os.write(file, text.encode())
        os.close(file)


def _new_root() -> None:
    """A root folder in memory with the Python library, three devices, and /proc as it was."""
    kernel.mounts_stay_here()
    copies = {path: kernel.tree(path, RDONLY | NOSUID | NODEV) for path in (*library(), *time_zones())}
    copies |= {path: kernel.tree(path, RDONLY | NOSUID | NOEXEC) for path in _DEVICES}
    copies["/proc"] = kernel.tree("/proc", 0)  # a new one is given only to those who see one in full
    kernel.mount("none", "/proc", "tmpfs", NOSUID, "size=1m,mode=755")
    os.chdir("/proc")
    for path, copy in copies.items():
        os.makedirs("." + os.path.dirname(path), exist_ok=True)
        if path in _DEVICES:
            os.close(os.open("." + path, os.O_CREAT | os.O_WRONLY))
        else:
            os.makedirs("." + path)
        kernel.graft(copy, "." + path)
    for path in library():
        for name in OTHERS:
            if os.path.isdir(f".{path}/{name}"):
                kernel.mount("none", f".{path}/{name}", "tmpfs", _PLAIN | RDONLY, "size=4k,nr_inodes=1")
    for path, target in _LINKS.items():
        os.symlink(target, "." + path)
    os.makedirs("." + SCRATCH)
    kernel.enter_root()
    kernel.add_flags(-100, b"/", RDONLY | _PLAIN)


def _go_on_as_first_process() -> None:
    """In a child; the parent ends as it does. The kernel ends each with the other, and with it all they started."""
    pid = os.fork()
    if pid:
        os.closerange(0, 1 << 16)
        _, status = os.waitpid(pid, 0)
        os._exit(0 if status == 0 else 1)
    kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)
