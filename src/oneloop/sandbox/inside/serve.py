"""The starter's loop: start, watch, kill, reap, report."""

from __future__ import annotations

import gc
import json
import mimetypes
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from oneloop.sandbox.inside import confine
from oneloop.sandbox.inside.host import Bare, Landlocked
from oneloop.sandbox.inside.kernel import pidfd_open
from oneloop.sandbox.inside.namespaces import Namespaces
from oneloop.sandbox.inside.python import load_libraries, load_locale, make_threads_small

_CONTROL = 0
"""The descriptor on which the caller talks to its starter."""
_LOWEST = 10
"""The first descriptor that may be a request's: the lower ones are where a run wants its own."""
_LOOK_SECONDS = 0.05
"""Between looks at what the kernel does not limit by itself."""
_MESSAGE = 1 << 16
_FAMILIAR = (
    "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "heapq", "io", "itertools", "json", "math", "operator", "random", "re", "statistics", "string",
    "threading", "traceback", "typing",
)  # fmt: skip
"""What most programs import: loaded once, and found in each fork."""
_WALLS: dict[str, Callable[[str], confine.Walls]] = {
    "namespaces": lambda folder: Namespaces(),
    "landlock": Landlocked,
    "unsafe": Bare,
}


def serve() -> Callable[[], None]:
    """Returns: in a confined process, what is to be called there. The starter itself never returns."""
    _forget_the_caller()
    control = socket.socket(fileno=_CONTROL)
    setup = json.loads(control.recv(_MESSAGE))
    caller = pidfd_open(setup["caller"])
    if os.getppid() != setup["caller"]:
        os._exit(0)
    try:
        for name in _FAMILIAR:
            import_module(name)
        roles = {name: import_module(name).main for name in setup["roles"]}
        mimetypes.knownfiles.clear()  # the system's, which no run can read
        load_libraries()
        load_locale()
        make_threads_small()
        while os.dup(caller) < _LOWEST:
            pass
        walls = _WALLS[setup["tier"]](setup["folder"])
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    control.send(b"{}")
    gc.collect()
    gc.freeze()  # what no collection looks at, no fork copies
    return Starter(control, caller, walls, roles).loop()


def _forget_the_caller() -> None:
    """What it ignores, blocks, or hides from others by its umask, neither the starter nor a run does."""
    changed = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
    for kind in changed:  # Python itself ignores the last two
        signal.signal(kind, signal.default_int_handler if kind == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.environ.pop("PYTHONHASHSEED", None)  # it has done its work


@dataclass(eq=False)
class Run:
    """A confined process that has not been reaped."""

    pid: int
    ended: int
    """A descriptor that can be read from once it has ended."""
    status: int
    """The socket on which the caller wishes it dead and is told how it ended."""
    ready: int
    """The pipe that says whether the confinement was complete before the role began."""
    printed: tuple[int, int]
    limits: dict[str, Any]
    hit: str | None = None

    def passed(self) -> str | None:
        """The limit that it has passed, of those that are the same wherever it runs."""
        if sum(os.fstat(descriptor).st_size for descriptor in self.printed) > self.limits["output_mb"] << 20:
            return "output"
        # the processor clock of another process: see clock_getcpuclockid(3)
        with suppress(OSError):
            return "cpu" if time.clock_gettime(~self.pid << 3 | 2) > self.limits["seconds"] else None


class Starter:
    def __init__(
        self, control: socket.socket, caller: int, walls: confine.Walls, roles: dict[str, confine.Role]
    ) -> None:
        self._control, self._caller, self._walls, self._roles = control, caller, walls, roles
        self._runs: dict[int, Run] = {}
        """By the descriptor that says that it has ended."""
        self._wishes: dict[int, Run] = {}
        """By the descriptor on which the caller wishes it dead, until it does."""
        # answers come in the order of registering: requests first, before a run that has ended gives its numbers back
        self._poll = select.poll()
        for descriptor in (control.fileno(), caller):
            self._poll.register(descriptor, select.POLLIN)

    def loop(self) -> Callable[[], None]:
        """Returns in forks only."""
        look = 0.0
        while True:
            at_work = self._walls.tidy() or self._runs
            for descriptor, _ in self._poll.poll(_LOOK_SECONDS * 1000 if at_work else None):
                if descriptor == self._caller:
                    self._leave()
                elif descriptor == self._control.fileno():
                    begin = self._accept()
                    if begin is not None:
                        return begin
                elif descriptor in self._wishes:
                    self._end(self._wishes[descriptor])
                elif descriptor in self._runs:
                    self._reap(self._runs[descriptor])
            if time.monotonic() >= look:
                for run in self._runs.values():
                    self._look(run)
                look = time.monotonic() + _LOOK_SECONDS

    def _accept(self) -> Callable[[], None] | None:
        data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 5)
        if not data:
            self._leave()
        request = json.loads(data)
        channel, stdin, stdout, stderr, status = descriptors
        ready, told = os.pipe()
        try:
            role = self._roles[request["role"]]
            pid = self._walls.fork()
        except (OSError, KeyError) as error:
            _tell(status, {"broken": f"{type(error).__name__}: {error}"})
            for descriptor in (*descriptors, ready, told):
                os.close(descriptor)
            return None
        if pid == 0:
            self._control.detach()  # nothing here may close a number that is another file by then
            self._runs, self._wishes = {}, {}
            given = (stdin, stdout, stderr, channel, told)
            return confine.prepared(self._walls, role, request["limits"], given)
        for descriptor in (channel, stdin, told):
            os.close(descriptor)
        run = Run(pid, pidfd_open(pid), status, ready, (stdout, stderr), request["limits"])
        self._runs[run.ended] = self._wishes[status] = run
        for descriptor in (run.ended, status):
            self._poll.register(descriptor, select.POLLIN)
        return None

    def _kill(self, run: Run) -> None:
        self._walls.kill(run.pid)
        if self._wishes.pop(run.status, None):
            self._poll.unregister(run.status)

    def _look(self, run: Run) -> None:
        """End a run that has passed a limit."""
        if run.hit is None:
            run.hit = run.passed() or self._walls.look(run.pid, run.limits)
            if run.hit is not None:
                self._kill(run)

    def _end(self, run: Run) -> None:
        """After a last look, while what it holds is there to be counted: it may be over before any other."""
        self._look(run)
        self._kill(run)

    def _reap(self, run: Run) -> None:
        self._end(run)
        _, status, usage = os.wait4(run.pid, 0)
        self._walls.reaped(run.pid)
        del self._runs[run.ended]
        self._poll.unregister(run.ended)
        with os.fdopen(run.ready, "rb") as ready:
            told = ready.read()
        for descriptor in (run.ended, *run.printed):
            os.close(descriptor)
        broken = None if told == confine.READY else told.decode(errors="replace") or "it ended while it was confined"
        code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        _tell(run.status, {"code": code, "cpu": cpu, "hit": run.hit, "broken": broken})
        os.close(run.status)

    def _leave(self) -> None:
        """End all that runs, and itself."""
        for run in self._runs.values():
            self._walls.kill(run.pid)
        for run in self._runs.values():
            os.waitpid(run.pid, 0)
        self._walls.leave()
        os._exit(0)


def _tell(status: int, answer: dict[str, Any]) -> None:
    with suppress(OSError):  # a caller that has let go
        os.write(status, json.dumps(answer).encode())
