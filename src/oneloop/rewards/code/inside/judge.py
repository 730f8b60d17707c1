"""Runs the text of tests; what it calls of the program is in another process, and crosses as plain values."""

from __future__ import annotations

import builtins
import os
import sys
from secrets import token_hex
from socket import socket
from threading import RLock
from types import ModuleType
from typing import Any, NoReturn

from oneloop.rewards.code.inside.text import Text, Ungradable, parsed
from oneloop.rewards.code.inside.wire import (
    Unfit,
    Unreadable,
    frame,
    packed,
    read,
    read_error,
    receive,
    unpacked,
    written,
)


def main(channel: socket) -> None:
    """Say how many units the tests have, wait for the program, and tell of each unit whether it passed."""
    judge = _Judge(channel)
    _, body = receive(channel)
    texts, alone, entry_point, share = unpacked(body)
    try:
        tests = [parsed(read(text), entry_point, alone) for text in texts]
    except Ungradable as why:
        judge.tell(b"N", str(why))
        return
    judge.tell(b"R", sum(test.units for test in tests))
    receive(channel)
    clean = True
    for test in tests:
        clean = judge.run(test, share) and clean
        if not clean and not share:
            break
    judge.tell(b"D", clean)


class _Judge:
    def __init__(self, channel: socket) -> None:
        self._channel, self._asking = channel, RLock()
        self._handles: dict[int, Handle] = {}

    def tell(self, kind: bytes, what: Any) -> None:
        self._channel.sendall(frame(kind, packed(what)))

    def run(self, test: Text, share: bool) -> bool:
        """Whether all of it passed."""
        run, clean = _Run(self, test), True
        for step in test.steps:
            passed = run.passes(step.code, step.unit)
            clean = clean and passed
            if step.unit:
                self.tell(b"U", passed)
            if not passed and not (step.unit and share):
                break
        return clean

    def name(self, name: str) -> Any:
        return self._ask("get", name)

    def attribute(self, number: int, name: str) -> Any:
        return self._ask("attribute", number, name)

    def call(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            given = [written(each, _number) for each in args]
            named = [[name, written(each, _number)] for name, each in kwargs.items()]
            return self._ask("call", number, given, named)
        except Unfit as error:
            raise TypeError(f"an argument of a call of the program: {error}") from None

    def _ask(self, *request: Any) -> Any:
        with self._asking:
            name = token_hex(8)
            self._channel.sendall(frame(b"C", packed([name, *request])))
            try:
                kind, body = receive(self._channel)
                answered, fine, tree = unpacked(body)
                if kind != b"A" or answered != name or type(fine) is not bool:
                    raise Unreadable
                found = read(tree, self._handle) if fine else read_error(tree)
            except BaseException:  # what is no answer ends the tests, whatever they would catch
                self._end()
        if not fine:
            raise found
        return found

    def _end(self) -> NoReturn:
        try:
            self.tell(b"X", None)
        finally:
            os._exit(1)

    def _handle(self, number: Any) -> Handle:
        if type(number) is not int:
            raise Unreadable
        handle = self._handles.get(number)
        if handle is None:
            handle = self._handles[number] = Handle(self, number)
        return handle


class _Run:
    """One text in a module of its own."""

    def __init__(self, judge: _Judge, test: Text) -> None:
        self._asserts = 0
        module = sys.modules["__main__"] = ModuleType("__main__")
        self._names = vars(module)
        self._names["__builtins__"] = _Builtins(judge, test, self._counted)

    def _counted(self, value: Any) -> Any:
        self._asserts += 1
        return value

    def passes(self, code: Any, unit: bool) -> bool:
        """A unit passes where the text has evaluated an assert by then."""
        try:
            exec(code, self._names)
        except BaseException:
            return False
        return not unit or self._asserts > 0


class _Builtins(dict[str, Any]):
    """The names that a text does not define: Python's, and the program's, which are asked for each time."""

    def __init__(self, judge: _Judge, test: Text, counted: Any) -> None:
        super().__init__(vars(builtins))
        for name in test.program:
            self.pop(name, None)
        self[Text.COUNTED] = counted
        self._judge, self._test = judge, test

    def __missing__(self, name: str) -> Any:
        if name not in self._test.program:
            raise KeyError(name)
        return self._judge.name(self._test.program[name])


class Handle:
    """What stays in the program's process: it can be called, handed back, and read by public names."""

    __slots__ = ("_judge", "_number")

    def __init__(self, judge: _Judge, number: int) -> None:
        object.__setattr__(self, "_judge", judge)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _JUDGE(self).call(_NUMBER(self), args, kwargs)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # isinstance asks for it
            return Handle
        if name.startswith("_"):
            _refuse(self)
        return _JUDGE(self).attribute(_NUMBER(self), name)


def _refuse(*given: Any) -> NoReturn:
    raise TypeError("an object of the program can be called, handed back, and read by public names; nothing else")


_JUDGE, _NUMBER = Handle._judge.__get__, Handle._number.__get__  # pyright: ignore[reportAttributeAccessIssue]
for _name in (
    "__setattr__", "__delattr__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__",
    "__repr__", "__str__", "__format__", "__iter__", "__contains__", "__dir__", "__reduce_ex__",
):  # fmt: skip
    setattr(Handle, _name, _refuse)


def _number(value: Any) -> int:
    """Keeps nothing but what is kept already."""
    if type(value) is not Handle:
        raise Unfit(f"a value of type {type(value).__name__} cannot be handed over")
    return _NUMBER(value)
