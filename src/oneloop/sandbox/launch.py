"""The caller's side of the starter, the process that all confined ones are forks of."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oneloop.errors import SandboxError

_ONELOOP = Path(__file__).parents[1]
_ROOMS = ("sandbox", "rewards/code")
"""Folders whose `inside` holds what runs in confined processes."""
_FLAGS = ("-S", "-s", "-P", "-B")
"""Isolated, but for the environment, which is our own: `-I` would ignore the hash seed."""
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/scratch", "TMPDIR": "/scratch", "LANG": "C.UTF-8"}
_START_SECONDS = 60.0
_PARTING_SECONDS = 5.0


class Starter:
    """A running starter.

    Raises: SandboxError where it does not come up.
    """

    def __init__(self, tier: str) -> None:
        self.tier = tier
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys._base_executable, *_FLAGS, str(_ONELOOP / "sandbox/inside/starter.py")],  # pyright: ignore
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**_ENVIRONMENT, "PYTHONHASHSEED": "0"},
                start_new_session=True,
                cwd="/",
            )
        try:
            setup = {"tier": tier, "caller": os.getpid(), "roles": _roles(), "folder": tempfile.gettempdir()}
            self._control.settimeout(_START_SECONDS)
            self._control.send(json.dumps(setup).encode())
            answer = self._control.recv(1 << 16)
            self._control.settimeout(None)
        except OSError as error:
            answer, reason = b"", str(error)
        else:
            reason = "it ended at once"
        told = json.loads(answer or json.dumps({"error": reason}))
        if "error" in told:
            self.close()
            raise SandboxError(f"the starter of confined processes cannot work: {told['error']}")

    def ask(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Raises: OSError where the starter is gone."""
        socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))

    def close(self) -> None:
        """End it and all that it has started."""
        self._control.close()
        try:
            self._process.wait(_PARTING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """In a forked child: it belongs to the parent."""
        self._control.close()
        self._process.returncode = 0


def _roles() -> list[str]:
    """Full names of the modules that may run inside: those with a `main`."""
    return [
        f"oneloop.{room.replace('/', '.')}.inside.{path.stem}"
        for room in _ROOMS
        for path in sorted((_ONELOOP / room / "inside").glob("*.py"))
        if "\ndef main(" in path.read_text(encoding="utf-8")
    ]
