"""The self-test of a tier: things to reach are laid out, and a confined process tries to get at them."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

from oneloop.sandbox.confined import begin
from oneloop.sandbox.launch import Starter
from oneloop.sandbox.limits import Limits

_ROLE = "oneloop.sandbox.inside.escape"
_SECONDS = 20.0
_TEXT = "nobody inside may see this"


def escapes(starter: Starter) -> list[str]:
    """What a program could do that it must not, and what it could not do that it must; empty where all is well."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oneloop-probe-")))
        folder.chmod(0o777)
        file = folder / "file"
        file.write_text(_TEXT)
        file.chmod(0o666)
        before = _state(file)
        targets = {"pid": os.getpid(), "folder": str(folder), "file": str(file), "text": _TEXT}
        targets["port"] = _listening(stack, socket.AF_INET, ("127.0.0.1", 0))[1]
        targets["socket"] = _listening(stack, socket.AF_UNIX, str(folder / "socket"))
        os.chmod(folder / "socket", 0o777)
        abstract = _listening(stack, socket.AF_UNIX, f"\0oneloop-probe-{os.getpid()}-{os.urandom(8).hex()}")
        targets["abstract"] = abstract.decode() if isinstance(abstract, bytes) else abstract
        run = stack.enter_context(begin(starter, _ROLE, Limits(seconds=_SECONDS), None))
        run.channel.settimeout(_SECONDS)
        run.channel.sendall(json.dumps(targets).encode() + b"\n")
        with run.channel.makefile() as answer:
            line = answer.readline()
        end = run.wait(monotonic() + _SECONDS)
        if not line:
            return [f"the self-test ended early ({end})"]
        found = json.loads(line)
        if _state(file) != before or {path.name for path in folder.iterdir()} != {"file", "socket"}:
            found.append("changes a file outside")
        return found


def _state(file: Path) -> tuple[str, int, float] | None:
    if not file.exists():
        return None
    status = file.stat()
    return file.read_text(), status.st_mode, status.st_mtime


def _listening(stack: ExitStack, family: int, address: Any) -> Any:
    server = stack.enter_context(socket.socket(family))
    server.bind(address)
    server.listen()
    return server.getsockname()
