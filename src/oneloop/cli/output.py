"""What goes out to a terminal or a file: safe to show, and no reason to end a run when it cannot be written."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from oneloop.secrets import redacted


class Patient:
    """Standard output that may go away: a pipe whose reader has ended, or a full disk, is no reason to end a run."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream  # None where the process was started without one

    def write(self, text: str) -> int:
        self._tried("write", text)
        return len(text)

    def flush(self) -> None:
        self._tried("flush")

    def _tried(self, name: str, *arguments: str) -> None:
        if self._stream is None:
            return
        try:
            getattr(self._stream, name)(*arguments)
        except OSError as error:
            self._stream = None
            forget_output()
            with suppress(OSError):
                print(f"nothing more is shown: standard output fails ({error.strerror})", file=sys.stderr)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream or sys.stderr, name)


def flush_output() -> None:
    """What is buffered for standard output, as far as it can be written."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        forget_output()


def forget_output() -> None:
    """What is still buffered for standard output goes nowhere, and Python does not complain of it at its end."""
    with suppress(OSError, ValueError):  # a stream of Python's own has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def visible(text: str) -> str:
    """Control characters shown, not obeyed: a completion must not move the cursor or set the clipboard."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def safe(text: str) -> str:
    """Without secrets, and with its control characters shown."""
    return visible(str(redacted(text)))
