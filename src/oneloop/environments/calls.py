"""How environments are called in a text: by what stands in brackets at the end of a completion."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_CALL = re.compile(r"\[([^\[\]]{1,64})\]\s*")


def called(completion: str) -> str | None:
    """What a completion that ends with `[...]` calls for; None: it is an answer."""
    begin = completion.rfind("[")
    found = _CALL.fullmatch(completion, begin) if begin >= 0 else None
    return found[1].strip() if found else None


def wanted(row: Mapping[str, Any]) -> str:
    """The right answer of a row. Raises: ValueError for a row without one."""
    if row.get("answer") is None:
        raise ValueError("the row has no column answer")
    return str(row["answer"]).strip()
