"""The lower tiers: processes of this machine, each with a scratch folder on its disk.

`Landlocked` is for where the kernel gives out no namespaces, as in most containers: Landlock and seccomp hold the
process. `Bare` has neither, and is unsafe.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from oneloop.sandbox.inside import kernel, landlock, seccomp
from oneloop.sandbox.inside.python import OTHERS, become, library, time_zones

_PREFIX = "oneloop-sandbox-"
_USERS = range(61184, 65520)
"""Ids that no account has: those from which systemd takes one for each service that asks for it."""
_LIBRARY_AT = 40
"""The first of the descriptors that stay open on the folders of the library where only root may enter those."""
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
"""Where scratch folders may lie if the folder for temporary files is root's alone."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


class Bare:
    """Scratch folders, and nothing else."""

    counts_threads = False
    """Whether the kernel can count the threads of a run by themselves."""
    keep: frozenset[int] = frozenset()
    """Descriptors that a run may not close before it is sealed."""

    def __init__(self, folder: str) -> None:
        sweep(folder)
        made = tempfile.mkdtemp(dir=folder)
        os.chmod(made, 0o711)
        self._lock = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._base = os.path.join(folder, _PREFIX + os.path.basename(made))
        os.rename(made, self._base)  # with that name only once it is locked: nobody sweeps it away
        self._next = int.from_bytes(os.urandom(2))
        self._scratch: dict[int, str] = {}
        self._removers: set[int] = set()

    def fork(self) -> int:
        self._next += 1
        folder = f"{self._base}/{self._next}"
        os.mkdir(folder, 0o700)
        pid = os.fork()
        if pid == 0:
            self._mine = folder
        else:
            self._scratch[pid] = folder
        return pid

    def shut(self, limits: dict[str, Any]) -> str:
        """Give up what can be given up. Returns: the scratch folder."""
        del limits
        return self._mine

    def seal(self) -> None:
        """The last step: nothing of the machine can be reached after it."""

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):  # it has not made itself the leader of its group yet
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)

    def look(self, pid: int, limits: dict[str, Any]) -> str | None:
        """The limits that the kernel does not hold here: threads of one process, and what lies in one folder."""
        if _threads(pid) > limits["threads"]:
            return "threads"
        return "scratch" if _fills(self._scratch[pid], limits["files"], limits["scratch_mb"] << 20) else None

    def reaped(self, pid: int) -> None:
        """Remove its folder; one that is not empty in a process of its own, as a disk may be slow and others wait."""
        folder = self._scratch.pop(pid)
        with suppress(OSError):
            os.rmdir(folder)
            return
        remover = os.fork()
        if remover == 0:
            try:
                os.closerange(3, 1 << 20)
                remove(folder)
            finally:
                os._exit(0)
        self._removers.add(remover)

    def tidy(self) -> bool:
        """Whether something is still being removed."""
        self._removers -= {pid for pid in self._removers if os.waitpid(pid, os.WNOHANG)[0] == pid}
        return bool(self._removers)

    def leave(self) -> None:
        for pid in self._removers:
            os.waitpid(pid, 0)
        remove(self._base)


class Landlocked(Bare):
    """Landlock, seccomp, no capabilities; for root another user for each run.

    Raises: OSError with what the kernel refuses.
    """

    def __init__(self, folder: str) -> None:
        if not landlock.version():
            raise OSError("the kernel has no Landlock (Linux 5.13 or newer, `landlock` in /sys/kernel/security/lsm)")
        self._root = self.counts_threads = os.geteuid() == 0
        if self._root:
            folder = next((place for place in (folder, *_PLACES) if _anybody_enters([place])), folder)
        super().__init__(folder)
        if self._root and not _anybody_enters(library()):
            self.keep = _read_by_descriptor()

    def shut(self, limits: dict[str, Any]) -> str:
        folder = super().shut(limits)
        paths = {path: landlock.READ for root in library() for path in _standard(root)}
        paths |= dict.fromkeys(library(), landlock.LIST) | dict.fromkeys(time_zones(), landlock.READ)
        paths |= dict.fromkeys(_DEVICES, landlock.USE) | {folder: landlock.CHANGE}
        self._rules = landlock.ruleset(paths)
        if self._root:
            user = _USERS[self._next % len(_USERS)]
            os.chown(folder, user, user)
            kernel.empty_bounding_set()
            become(user)
        return folder

    def seal(self) -> None:
        landlock.restrict(self._rules)
        seccomp.install(seccomp.compiled(os.getpid(), guarded=False))


def _standard(root: str) -> list[str]:
    """What lies in a folder of the library, without the folders of what is not standard."""
    return [entry.path for entry in os.scandir(root) if entry.name not in OTHERS]


def _anybody_enters(folders: list[str]) -> bool:
    """Also a user whom nobody knows."""
    pid = os.fork()
    if pid == 0:
        try:
            become(_USERS[0])
            os._exit(0 if all(os.access(folder, os.X_OK) for folder in folders) else 1)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _read_by_descriptor() -> frozenset[int]:
    """Name the folders of the library by open descriptors: the way to them may be root's alone, they are not."""
    kept = set()
    for place, folder in enumerate(library(), _LIBRARY_AT):
        opened = os.open(folder, os.O_PATH)
        os.dup2(opened, place, inheritable=False)
        os.close(opened)
        kept.add(place)
        by = f"/proc/self/fd/{place}"
        sys.path[:] = [by if path == folder else path.replace(folder + "/", by + "/") for path in sys.path]
        for module in list(sys.modules.values()):
            if isinstance(paths := getattr(module, "__path__", None), list):
                paths[:] = [path.replace(folder + "/", by + "/") for path in paths]
    return frozenset(kept)


def _threads(pid: int) -> int:
    # the 20th field; the second one, a name in parentheses, may hold anything
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[17])
    return 0


def _fills(folder: str, files: int, size: int) -> bool:
    """Whether there is more in a folder than that; never looks at more. What cannot be looked at is too much."""
    left = [folder]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    files -= 1
                    size -= entry.stat(follow_symlinks=False).st_blocks * 512
                    if files < 0 or size < 0:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):  # it is at work there
            continue
        except OSError:  # permissions taken away, or a path that is too long
            return True
    return False


def remove(folder: str) -> None:
    """A folder of dead processes, however deep and whatever its permissions; links are never followed."""
    above = os.open(os.path.dirname(folder), _FOLDER)
    name = os.path.basename(folder)
    path: list[tuple[str, list[str]]] = []
    """Names from the folder down to where we are, each with the folders in it that are still to be removed."""
    try:
        while True:
            here = _entered(above, name)
            os.close(above)
            above = here
            path.append((name, _emptied(here)))
            while not path[-1][1]:
                name, _ = path.pop()
                above = _left(above)
                os.rmdir(name, dir_fd=above)
                if not path:
                    return
            name = path[-1][1].pop()
    finally:
        os.close(above)


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _entered(parent: int, name: str) -> int:
    os.chmod(name, 0o700, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)


def _left(folder: int) -> int:
    """The one above; descriptors, as a path may grow too long."""
    above = os.open("..", _FOLDER, dir_fd=folder)
    os.close(folder)
    return above


def _emptied(folder: int) -> list[str]:
    """Remove what is no folder. Returns: names of the folders."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders


def sweep(folder: str) -> None:
    """Remove what a starter that was killed left behind: nobody holds its lock."""
    for path in Path(folder).glob(_PREFIX + "*"):
        with suppress(OSError):
            if os.lstat(path).st_uid != os.geteuid() or not stat.S_ISDIR(os.lstat(path).st_mode):
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(str(path))
            finally:
                os.close(lock)
