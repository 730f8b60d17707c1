"""The starter's loop: start, watch, kill, reap, report."""

from __future__ import annotations

import json
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
from oneloop.sandbox.inside.kernel import pidfd_open

CONTROL = 0
"""The descriptor on which the caller talks to its starter."""
_LOOK = 0.05
"""Seconds between looks at what the kernel does not limit by itself."""
_MESSAGE = 1 << 16


@dataclass
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


def serve() -> Callable[[], None]:
    """Returns: in a confined process, what is to be called there. The starter itself never returns."""
    control = socket.socket(fileno=CONTROL)
    setup = json.loads(control.recv(_MESSAGE))
    roles = {name: import_module(name) for name in setup["roles"]}
    parent = pidfd_open(setup["caller"])
    if os.getppid() != setup["caller"]:
        os._exit(0)
    control.send(b"{}")
    return Starter(control, parent).loop(roles)


class Starter:
    def __init__(self, control: socket.socket, parent: int) -> None:
        self._control, self._parent = control, parent
        self._runs: dict[int, Run] = {}
        self._poll = select.poll()
        for descriptor in (control.fileno(), parent):
            self._poll.register(descriptor, select.POLLIN)

    def loop(self, roles: dict[str, Any]) -> Callable[[], None]:
        while True:
            events = self._poll.poll(_LOOK * 1000 if self._runs else None)
            for descriptor, _ in events:
                if descriptor == self._control.fileno():
                    begin = self._accept(roles)
                    if begin is not None:
                        return begin
                elif descriptor == self._parent:
                    self._leave()
                else:
                    self._event(descriptor)
            for run in self._runs.values():
                self._look(run)

    def _accept(self, roles: dict[str, Any]) -> Callable[[], None] | None:
        data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 5)
        if not data:
            self._leave()
        request = json.loads(data)
        channel, stdin, stdout, stderr, status = descriptors
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._control.detach()  # nothing here may close a number that is another file by then
            return confine.prepared(
                roles[request["role"]].main, request["limits"], channel, (stdin, stdout, stderr), told
            )
        for descriptor in (channel, stdin, told):
            os.close(descriptor)
        run = Run(pid, pidfd_open(pid), status, ready, (stdout, stderr), request["limits"])
        for descriptor in (run.ended, status):
            self._runs[descriptor] = run
            self._poll.register(descriptor, select.POLLIN)
        return None

    def _event(self, descriptor: int) -> None:
        run = self._runs.get(descriptor)
        if run is None:  # the other descriptor of the same run came first
            return
        if descriptor == run.ended:
            self._reap(run)
        else:  # a wish to kill, or a caller that has let go
            os.kill(run.pid, signal.SIGKILL)
            self._poll.unregister(descriptor)

    def _look(self, run: Run) -> None:
        """End a run that has passed a limit."""
        if run.hit is None:
            run.hit = passed(run)
            if run.hit is not None:
                os.kill(run.pid, signal.SIGKILL)

    def _reap(self, run: Run) -> None:
        run.hit = run.hit or passed(run)
        _, status, usage = os.wait4(run.pid, 0)
        with os.fdopen(run.ready, "rb") as ready:
            told = ready.read()
        self._poll.unregister(run.ended)
        with suppress(KeyError):
            self._poll.unregister(run.status)
        del self._runs[run.ended], self._runs[run.status]
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "hit": run.hit,
            "broken": None if told == confine.READY else told.decode(errors="replace") or "ended while it was confined",
        }
        with suppress(OSError):
            os.write(run.status, json.dumps(answer).encode())
        for descriptor in (run.status, run.ended, *run.printed):
            os.close(descriptor)

    def _leave(self) -> None:
        for run in list(self._runs.values()):
            with suppress(ProcessLookupError):
                os.kill(run.pid, signal.SIGKILL)
        for pid in {run.pid for run in self._runs.values()}:
            os.waitpid(pid, 0)
        os._exit(0)


def passed(run: Run) -> str | None:
    """The limit that a run has passed, of those that the kernel does not hold exactly by itself."""
    if sum(os.fstat(descriptor).st_size for descriptor in run.printed) > run.limits["output_mb"] << 20:
        return "output"
    # the clock of another process: see clock_getcpuclockid(3)
    if time.clock_gettime(~run.pid << 3 | 2) > run.limits["seconds"]:
        return "cpu"
    return None
