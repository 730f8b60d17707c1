"""Holds a program as a module, and answers calls of it; all that it is told of the tests is the present call."""

from __future__ import annotations

import sys
from socket import socket
from types import ModuleType
from typing import Any

from oneloop.rewards.code.inside.wire import (
    Ended,
    Unfit,
    frame,
    packed,
    read,
    receive,
    unpacked,
    written,
    written_error,
)

NAME = "program"
"""The module's."""


def main(channel: socket) -> None:
    program = _Program()
    while True:
        try:
            _, body = receive(channel)
        except Ended:
            return
        channel.sendall(frame(b"A", program.answer(body)))
        del body


class _Program:
    """The module, and what has crossed as a handle."""

    def __init__(self) -> None:
        self._module = ModuleType(NAME)
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}

    def answer(self, body: bytearray) -> bytes:
        request, what, *given = unpacked(body)
        try:
            value = getattr(self, f"_{what}")(*given)
            try:
                return packed([request, True, written(value, self._keep)])
            except Unfit:
                return packed([request, True, ["h", self._keep(value)]])
        except BaseException as error:
            return packed([request, False, written_error(error)])

    def _load(self, source: Any) -> None:
        sys.argv = [f"{NAME}.py"]
        sys.modules[NAME] = self._module
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(read(source), f"{NAME}.py", "exec", dont_inherit=True), vars(self._module))

    def _get(self, name: str) -> Any:
        try:
            return getattr(self._module, name)
        except AttributeError:
            raise NameError(f"name {name!r} is not defined") from None

    def _attribute(self, number: int, name: str) -> Any:
        return getattr(self._kept[number], name)

    def _call(self, of: str | int, args: list[Any], kwargs: list[Any]) -> Any:
        function = self._get(of) if isinstance(of, str) else self._kept[of]
        return function(
            *[read(each, self._at) for each in args], **{name: read(each, self._at) for name, each in kwargs}
        )

    def _at(self, number: int) -> Any:
        return self._kept[number]

    def _keep(self, value: Any) -> int:
        """One number for one object: the other side compares handles by `is`."""
        number = self._numbers.setdefault(id(value), len(self._kept))
        if number == len(self._kept):
            self._kept.append(value)
        return number
