"""What a fork of the starter does to itself before it runs what nobody trusts."""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import gc
import math
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from oneloop.sandbox.inside import kernel
from oneloop.sandbox.inside.python import be_in_utc

READY = b"ready"
_CHANNEL, _TOLD = 3, 4
_DESCRIPTORS = 256


class Walls(Protocol):
    """A way to hold a process; made once in the starter, and used in each fork of it."""

    counts_threads: bool
    keep: frozenset[int]

    def fork(self) -> int: ...
    def shut(self, limits: dict[str, Any]) -> str: ...
    def seal(self) -> None: ...
    def kill(self, pid: int) -> None: ...
    def look(self, pid: int, limits: dict[str, Any]) -> str | None: ...
    def reaped(self, pid: int) -> None: ...
    def tidy(self) -> bool: ...
    def leave(self) -> None: ...


Role = Callable[[socket.socket], None]


def prepared(walls: Walls, role: Role, limits: dict[str, Any], descriptors: tuple[int, ...]) -> Callable[[], None]:
    """Confine this process. Never returns where that fails: the reason goes to the last of the descriptors.

    Args:
        descriptors: stdin, stdout, stderr, channel, and where to tell whether this worked; all above 4.
    """
    told = descriptors[-1]
    try:
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
        told = _TOLD
        _close_above(_TOLD, walls.keep)
        os.setsid()
        os.umask(0o077)
        scratch = walls.shut(limits)
        os.chdir(scratch)
        os.environ.update(HOME=scratch, TMPDIR=scratch)
        limit(limits, walls.counts_threads)
        kernel.give_up_capabilities()
        kernel.prctl(kernel.DUMPABLE, 0)
        kernel.prctl(kernel.PDEATHSIG, signal.SIGKILL)
        look_new()
        walls.seal()
        be_in_utc()
        os.write(_TOLD, READY)
        os.close(_TOLD)
    except BaseException as error:
        os.write(told, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    return lambda: run(role)


def run(role: Role) -> NoReturn:
    """From the first line to the last as an interpreter does it, but for the memory, which the kernel frees faster."""
    try:
        role(socket.socket(fileno=_CHANNEL))
        code = 0
    except SystemExit as end:
        code = _status(end.code)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    if not _flushed("stdout", "stderr"):  # as Python ends that cannot print
        code = code or 120
    sys.modules.pop("__main__", None)
    gc.collect()  # what nothing else holds says its last words while the names of its module are still there
    _flushed("stdout", "stderr", "__stdout__", "__stderr__")
    os._exit(code)


def _flushed(*names: str) -> bool:
    """Whether those streams are written, or are closed, or were taken away."""
    fine = True
    for name in names:
        stream = getattr(sys, name, None)
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except Exception:
            fine = False
    return fine


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    print(code, file=sys.stderr)
    return 1


def _close_above(highest: int, keep: frozenset[int]) -> None:
    start = highest + 1
    for kept in sorted(keep):
        os.closerange(start, kept)
        start = kept + 1
    os.closerange(start, 1 << 20)


def limit(limits: dict[str, Any], threads: bool) -> None:
    values = {
        resource.RLIMIT_CPU: math.ceil(limits["seconds"]) + 1,  # the starter ends it at the exact time
        resource.RLIMIT_AS: limits["memory_mb"] << 20,
        # never below what may be printed, else more could not be told from just as much
        resource.RLIMIT_FSIZE: max(limits["scratch_mb"], limits["output_mb"] + 1) << 20,
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if threads:
        values[resource.RLIMIT_NPROC] = limits["threads"]
    for kind, value in values.items():
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def look_new() -> None:
    """As an interpreter that has just begun: streams of its own, no module that is not Python's."""
    for place, (name, mode, errors) in enumerate(
        (("stdin", "r", "surrogateescape"), ("stdout", "w", "surrogateescape"), ("stderr", "w", "backslashreplace"))
    ):
        stream = open(place, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    for name in [name for name in sys.modules if name.partition(".")[0] == "oneloop"]:
        del sys.modules[name]
    # Python without its site module, which would bring what is installed, leaves these out
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    os.system = _refused  # the C library's own would only return a number


def _refused(command: Any) -> NoReturn:
    raise PermissionError("no second process may be started")
