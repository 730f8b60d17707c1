"""A confined process as its caller sees it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from time import monotonic
from types import TracebackType

from oneloop.errors import SandboxError
from oneloop.sandbox.inside.kernel import memfd
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.limits import Limits

_SEALS = 0x1 | 0x2 | 0x4 | 0x8
"""F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE of linux/fcntl.h."""
_KILL_SECONDS = 10.0
"""How long the starter may take to say that a killed process is gone; it takes milliseconds."""


@dataclass(frozen=True)
class Exit:
    """How a process ended."""

    status: int | None
    """Exit status, None if a signal ended it."""
    signal: int | None
    cpu_seconds: float
    limit_hit: str | None
    """The limit that it passed: "cpu", "output", "threads", "scratch", or "wall" for the deadline of `wait`."""


class Confined:
    """A process that runs a role. Used as a context manager it is gone afterwards, whatever happens.

    `channel` is the caller's end of a stream socket to the role, at its end when the process is.
    """

    def __init__(self, channel: socket.socket, status: socket.socket, printed: tuple[int, int], limits: Limits) -> None:
        self.channel, self._status, self._limits = channel, status, limits
        self._printed, self._exit = printed, None
        self._close = weakref.finalize(self, _close, channel, status, printed)

    def wait(self, deadline: float) -> Exit:
        """Until the process has ended or, at `deadline` of `time.monotonic()`, is killed.

        Raises: SandboxError where the machine could not run it, whatever it was.
        """
        if self._exit is None:
            self._exit = self._ended(deadline)
        return self._exit

    def kill(self) -> None:
        """End it now, and see that it is gone."""
        with suppress(SandboxError):
            self.wait(0.0)

    def stdout(self) -> bytes:
        """What it has printed, at most `output_mb`."""
        return os.pread(self._printed[0], self._limits.output_mb << 20, 0)

    def stderr(self) -> bytes:
        return os.pread(self._printed[1], self._limits.output_mb << 20, 0)

    def close(self) -> None:
        """Kill it and let go of all descriptors."""
        if self._close.alive:
            self.kill()
            self._close()

    def __enter__(self) -> Confined:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _ended(self, deadline: float) -> Exit:
        wall = not _readable(self._status, deadline - monotonic())
        if wall:
            with suppress(OSError):
                self._status.shutdown(socket.SHUT_WR)
            if not _readable(self._status, _KILL_SECONDS):
                raise SandboxError("the starter of confined processes does not answer")
        try:
            answer = self._status.recv(1 << 16)
        except OSError:
            answer = b""
        if not answer:
            raise SandboxError("the starter of confined processes has died")
        told = json.loads(answer)
        if told["broken"]:
            raise SandboxError(f"a process could not be confined: {told['broken'][:200]!r}")
        code = told["code"]
        return Exit(
            status=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cpu_seconds=told["cpu"],
            limit_hit=told["hit"] or ("wall" if wall else None),
        )


def begin(starter: Starter, role: str, limits: Limits, stdin: bytes | None) -> Confined:
    """See `oneloop.sandbox.process.start`.

    Raises: OSError where the starter is gone, or this process has no descriptors left.
    """
    mine: list[socket.socket] = []
    theirs: list[int] = []
    printed: list[int] = []
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            here, there = socket.socketpair(socket.AF_UNIX, kind)
            mine.append(here)
            theirs.append(there.detach())
        theirs.append(_file(stdin))
        printed += memfd("stdout"), memfd("stderr")
        for descriptor in printed:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
        channel, status, given = theirs
        starter.ask({"role": role, "limits": asdict(limits)}, [channel, given, *printed, status])
        confined = Confined(mine[0], mine[1], (printed[0], printed[1]), limits)
        mine, printed = [], []
        return confined
    finally:
        for here in mine:
            here.close()
        for descriptor in (*theirs, *printed):
            os.close(descriptor)


def _file(content: bytes | None) -> int:
    """A descriptor to read this from; nobody can change it, and so two that share it cannot talk through it."""
    if content is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = memfd("stdin")
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _readable(one: socket.socket, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(one, select.POLLIN)
    return bool(waiting.poll(max(0.0, seconds) * 1000))


def _close(channel: socket.socket, status: socket.socket, printed: tuple[int, int]) -> None:
    channel.close()
    status.close()
    for descriptor in printed:
        os.close(descriptor)
