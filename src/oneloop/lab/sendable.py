"""What a report leaves out, for a file is sent to others: the machine, the process, and folders of whoever ran it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_PART = r"[^/\\\s'\",;:<>]+"
_FOLDERS = re.compile(rf"(?<![\w/.~-])(?:~|[A-Za-z]:)?[/\\](?:{_PART}[/\\])+")
"""Of an absolute path, all but its last part. Relative paths stay, and so do addresses such as https://host/name."""
_HOME = re.compile(rf"(?<![\w/.~-])/(?:home|Users)/{_PART}(?![/\w])")
_PROCESS = re.compile(r"\bprocess \d+\b")


def sendable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A run's facts without its host and its process, and its folders hidden; the objective stays as it is."""
    info = {name: value for name, value in facts["info"].items() if name not in ("host", "pid")}
    words = _PROCESS.sub("its process", facts["words"])
    if host := facts["info"].get("host"):
        words = words.replace(f" on {host}", " on another machine")
    return {**without_folders({**facts, "info": info, "words": words}), "objective": facts["objective"]}


def without_folders(value: Any) -> Any:
    """The same value; in texts, `…/name` for an absolute path to `name`.

    >>> without_folders(["--out=/home/me/runs/x", "/home/me", "runs/x", "https://host/a/b"])
    ['--out=…/x', '…', 'runs/x', 'https://host/a/b']
    """
    if isinstance(value, str):
        return _FOLDERS.sub("…/", _HOME.sub("…", value))
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [without_folders(item) for item in value]
    return value
