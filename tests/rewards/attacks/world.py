"""What lies outside and is watched: files, sockets, a process, secrets in the environment and in open files."""

from __future__ import annotations

import ctypes
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SECRET = "oneloop-secret-"
_LIBC = ctypes.CDLL(None)
_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "ONELOOP_ENGINE_KEY")


class World:
    """A context manager. `evidence()` says in words what has been reached or changed since the last time."""

    def __enter__(self) -> World:
        self.folder = Path(tempfile.mkdtemp(prefix="outside-"))
        self.folder.chmod(0o777)
        self._secret = SECRET + secrets.token_hex(8)
        for name, mode in (("secret", 0o644), ("open", 0o666), ("own", 0o644)):
            (self.folder / name).write_text(self._secret)
            (self.folder / name).chmod(mode)
        os.environ.update(dict.fromkeys(_VARIABLES, self._secret))
        self._inherited = os.open(self.folder / "secret", os.O_RDONLY)
        os.set_inheritable(self._inherited, True)
        self._top = os.open("/", os.O_RDONLY)
        os.set_inheritable(self._top, True)
        self._sockets = {
            "TCP": _bound(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 0)),
            "UDP": _bound(socket.AF_INET, socket.SOCK_DGRAM, ("0.0.0.0", 0)),
            "a unix socket": _bound(socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "socket")),
            "a unix datagram socket": _bound(socket.AF_UNIX, socket.SOCK_DGRAM, str(self.folder / "datagrams")),
        }
        self._abstract = f"oneloop-outside-{secrets.token_hex(8)}"
        for ending, kind in (("", socket.SOCK_STREAM), ("-datagrams", socket.SOCK_DGRAM)):
            name = f"\0{self._abstract}{ending}"
            self._sockets[f"an abstract socket{ending}"] = _bound(socket.AF_UNIX, kind, name)
        for name in ("socket", "datagrams"):
            (self.folder / name).chmod(0o777)
        self._victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100000)"])
        self._segment = _LIBC.shmget(0, 4096, 0o666)
        self._before = self._state()
        return self

    def __exit__(self, *_: object) -> None:
        self._victim.kill()
        self._victim.wait()
        for one in self._sockets.values():
            one.close()
        os.close(self._inherited)
        os.close(self._top)
        for name in _VARIABLES:
            os.environ.pop(name, None)
        shutil.rmtree(self.folder)
        _LIBC.shmctl(self._segment, 0, None)

    def filled(self, program: str) -> str:
        """The program with the names of what is here."""
        here = {
            "OUTSIDE": self.folder,
            "TCP": self._sockets["TCP"].getsockname()[1],
            "UDP": self._sockets["UDP"].getsockname()[1],
            "ABSTRACT": self._abstract,
            "VICTIM": self._victim.pid,
            "CALLER": os.getpid(),
            "SEGMENT": self._segment,
            "SOURCE": Path(__file__),
            "HOST": socket.gethostname(),
            "NODE": os.uname().nodename,
        }
        for name, value in here.items():
            program = program.replace(f"@{name}@", str(value))
        return program

    def evidence(self) -> list[str]:
        after = self._state()
        found = [f"{name} is {after[name]}, was {old}" for name, old in self._before.items() if after[name] != old]
        for name, one in self._sockets.items():
            try:
                one.recv(1) if one.type == socket.SOCK_DGRAM else one.accept()[0].close()
                found.append(f"{name} was reached")
            except BlockingIOError:
                pass
        return found

    def _state(self) -> dict[str, object]:
        """Everything that no program may change."""
        files = {
            path.name: (
                path.stat().st_mode,
                path.stat().st_mtime,
                path.stat().st_uid,
                path.stat().st_nlink,
                _text(path),
            )
            for path in sorted(self.folder.iterdir())
        }
        return {
            "the folder outside": files,
            "the victim": (self._victim.poll(), _process(self._victim.pid)),
            "the caller's priority": os.getpriority(os.PRIO_PROCESS, 0),
            "the caller's limits": [resource.getrlimit(kind) for kind in range(16)],
            "the caller's umask": _umask(),
            "the caller's cores": os.sched_getaffinity(0),
            "the caller's signals": [signal.getsignal(kind) for kind in sorted(signal.valid_signals())],
            "the caller's folder": os.getcwd(),
        }


def _bound(family: int, kind: int, address: object) -> socket.socket:
    one = socket.socket(family, kind)
    one.bind(address)  # pyright: ignore[reportArgumentType]
    if kind == socket.SOCK_STREAM:
        one.listen(64)
    one.setblocking(False)
    return one


def _text(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _process(pid: int) -> tuple[object, ...]:
    """Whether it runs or was stopped, its priority and its cores."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "stopped" if state == "T" else "there", os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid)
