"""The role of the self-test: tries what no confined process may do, and what each must be able to."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from oneloop.sandbox.inside import kernel

_CALLS = {
    # name: numbers on x86_64 and aarch64, arguments that are well-formed
    "ptrace": (101, 117, (16, "pid", 0, 0)),
    "process_vm_readv": (310, 270, ("pid", 0, 0, 0, 0, 0)),
    "pidfd_open": (434, 434, ("pid", 0)),
    "unshare": (272, 97, (kernel.NEWUSER,)),
    "unshare of files": (272, 97, (0x400,)),
    "keyctl": (250, 219, (0, -3, 1)),
    "io_uring_setup": (425, 425, (4, "zeros")),
    "bpf": (321, 280, (0, "zeros", 64)),
    "perf_event_open": (298, 241, ("zeros", 0, -1, -1, 0)),
    "userfaultfd": (323, 282, (1,)),
    "memfd_create": (319, 279, ("zeros", 0)),
    "inotify_init1": (294, 26, (0,)),
    "shmget": (29, 194, (0, 4096, 0o1666)),
    "msgget": (68, 186, (0, 0o1666)),
    "personality": (135, 92, (0xFFFFFFFF,)),
    "sched_setaffinity": (203, 122, ("pid", 128, "ones")),
    "setpriority": (141, 140, (0, "pid", 19)),
    "getpriority": (140, 141, (0, "pid")),
    "tkill": (200, 130, ("pid", 0)),
    "rt_sigqueueinfo": (129, 138, ("pid", 0, "zeros")),
    "clone": (56, 220, (signal.SIGCHLD, 0, 0, 0, 0)),
}


def main(channel: socket.socket) -> None:
    """Receives what there is to reach, as a line of JSON; sends names of what went wrong."""
    with channel.makefile() as lines:
        targets = json.loads(lines.readline())
    found = [name for name, attempt in attempts(targets).items() if _succeeds(attempt)]
    found += [f"cannot {name}" for name, need in needs().items() if not _succeeds(need)]
    channel.sendall(json.dumps(found).encode() + b"\n")
    os._exit(0)


def _succeeds(attempt: Callable[[], Any]) -> bool:
    try:
        return attempt() is not False
    except (OSError, ValueError, RuntimeError, MemoryError, ImportError):
        return False


def attempts(targets: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """By what it would be if it succeeded: raises, or gives False, where it does not."""
    pid, file, folder = targets["pid"], targets["file"], targets["folder"]
    tried: dict[str, Callable[[], Any]] = {
        "reads a file outside": lambda: _read(file) == targets["text"].encode(),
        "writes a file outside": lambda: os.open(folder + "/new", os.O_CREAT | os.O_WRONLY),
        "empties a file outside": lambda: os.truncate(file, 0),
        "removes a file outside": lambda: os.unlink(file),
        "renames a file outside": lambda: os.rename(file, file + "2"),
        "links a file outside": lambda: os.link(file, "link"),
        "lists a folder outside": lambda: os.listdir(folder),
        "reads accounts": lambda: _read("/etc/passwd"),
        "reads another process's environment": lambda: _read(f"/proc/{pid}/environ"),
        "lists processes": lambda: set(filter(str.isdigit, os.listdir("/proc"))) != {str(os.getpid())},
        "opens a kernel log": lambda: os.open("/dev/kmsg", os.O_RDONLY),
        "connects over TCP": lambda: socket.create_connection(("127.0.0.1", targets["port"]), 1.0),
        "sends over UDP": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
        "connects to a socket by path": lambda: socket.socket(socket.AF_UNIX).connect(targets["socket"]),
        "connects to an abstract socket": lambda: socket.socket(socket.AF_UNIX).connect(targets["abstract"]),
        "pairs datagram sockets": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "signals the caller": lambda: os.kill(pid, 0),
        "signals everybody": lambda: os.kill(-1, 0),
        "starts a process": _forks,
        "starts a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "sees the caller's environment": lambda: bool(set(os.environ) - {"PATH", "HOME", "TMPDIR", "LANG"}),
        "has the caller's descriptors": lambda: any(map(_is_open, set(range(4, 256)) - _library())),
        "is root": lambda: 0 in (*os.getresuid(), *os.getresgid()),
        "raises a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
    }
    for name, (*numbers, arguments) in _CALLS.items():
        tried[f"may call {name}"] = lambda numbers=numbers, arguments=arguments: _call(numbers, arguments, pid)
    return tried


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _forks() -> None:
    if os.fork() == 0:
        os._exit(0)


def _library() -> set[int]:
    """Descriptors of the folders of the library, where the way there is closed."""
    return {int(path.rpartition("/")[2]) for path in sys.path if path.startswith("/proc/self/fd/")}


def _is_open(descriptor: int) -> bool:
    with suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def _call(numbers: list[Any], arguments: tuple[Any, ...], pid: int) -> None:
    number = numbers[kernel.MACHINES.index(os.uname().machine)]
    given = {"pid": pid, "zeros": ctypes.create_string_buffer(256), "ones": b"\xff" * 128}
    result = kernel.syscall("", number, *(given.get(each, each) for each in arguments))
    if number in (56, 220) and result == 0:  # a child, which should not be
        os._exit(0)


def needs() -> dict[str, Callable[[], Any]]:
    """What honest programs do."""
    return {
        "write in its folder": _writes,
        "import the library": lambda: [import_module(name) for name in ("colorsys", "hashlib", "sqlite3", "zlib")],
        "start threads": _threads,
        "run asyncio": lambda: asyncio.run(asyncio.sleep(0)),
        "read random bytes": lambda: os.read(os.open("/dev/urandom", os.O_RDONLY), 8),
    }


def _writes() -> None:
    with tempfile.TemporaryDirectory() as folder, open(folder + "/file", "w+") as file:
        file.write("text")


def _threads() -> bool:
    done: list[int] = []
    threads = [threading.Thread(target=done.append, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done) == len(threads)
