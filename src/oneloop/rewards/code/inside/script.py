"""Runs a program as a script is run: its module is `__main__`, and its end is the end of the process."""

from __future__ import annotations

import builtins
import os
import sys
from socket import socket
from types import ModuleType

from oneloop.rewards.code.inside.wire import read, receive, unpacked


def main(channel: socket) -> None:
    with channel:
        _, body = receive(channel)
    module = sys.modules["__main__"] = ModuleType("__main__")
    vars(module).update(__builtins__=builtins, __file__=os.path.abspath("program.py"))  # as those of a script are
    sys.argv = ["program.py"]
    exec(compile(read(unpacked(body)), "program.py", "exec", dont_inherit=True), vars(module))
