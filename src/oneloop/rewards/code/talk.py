"""Frames to and from a confined process, until a deadline."""

from __future__ import annotations

import select
from time import monotonic
from typing import Any

from oneloop.rewards.code.inside import wire
from oneloop.sandbox.process import Confined


class Gone(Exception):
    """The other side has ended, is silent past the deadline, or sends what is no frame."""


class Talk:
    """A conversation in which the other side speaks when it is asked, and then once."""

    def __init__(self, run: Confined, deadline: float) -> None:
        self._channel, self._deadline = run.channel, deadline

    def send(self, kind: bytes, body: bytes | bytearray) -> None:
        """Raises: Gone."""
        try:
            self._channel.settimeout(self._left())
            self._channel.sendall(wire.frame(kind, body))
        except OSError:
            raise Gone from None

    def receive(self) -> tuple[bytes, bytearray]:
        """Raises: Gone."""
        try:
            return wire.receive(self)
        except (OSError, wire.Ended, wire.Unreadable):
            raise Gone from None

    def recv_into(self, place: memoryview) -> int:
        """For `wire.receive`: the deadline holds for every piece."""
        self._channel.settimeout(self._left())
        return self._channel.recv_into(place)

    def read(self, body: bytearray) -> Any:
        """What a frame says.

        Raises: Gone.
        """
        try:
            return wire.unpacked(body)
        except wire.Unreadable:
            raise Gone from None

    def quiet(self) -> bool:
        """It is there, and says nothing that it was not asked for."""
        waiting = select.poll()
        waiting.register(self._channel, select.POLLIN)
        return not waiting.poll(0)

    def _left(self) -> float:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        return left
