"""What run.json says of the process that a run began in."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from time import time
from typing import Any

from oneloop.secrets import redacted


def started(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "running",
        "failure": None,
        "exit_code": None,
        **redacted(facts),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time(),
        "argv": redacted(sys.argv),
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in ("oneloop", "torch", "transformers", "tokenizers", "safetensors")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
