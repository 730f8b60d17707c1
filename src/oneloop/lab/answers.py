"""What a route answers: plain values as JSON, or words that say why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


class Refusal(Exception):
    """No result, for a reason that the reader is told: 400 a bad question, 404 not there, 410 not readable any more."""

    def __init__(self, status: int, error: str, fix: str = "") -> None:
        super().__init__(error)
        self.status, self.fix = status, fix

    def body(self) -> dict[str, str]:
        return {"error": str(self), "fix": self.fix}


def encoded(value: Any) -> bytes:
    """JSON. Numbers that are not finite are null; a lone surrogate is written as the escape that it has."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:  # rare: most answers hold finite numbers only, and need no second walk
        text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def finite(value: Any) -> Any:
    """The same with None for what JSON has no word for."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def whole(text: str | None, name: str, default: int, least: int = 0, most: int = 2**62) -> int:
    """A whole number of the query. Raises: Refusal."""
    if text is None or text == "":
        return default
    try:
        if not text.isascii():
            raise ValueError
        number = int(text)
    except ValueError:
        raise Refusal(400, f"{name}={text[:40]!r} is no whole number", f"{name}={default}") from None
    if not least <= number <= most:
        raise Refusal(400, f"{name}={number} lies outside {least} to {most}", f"{name}={min(max(number, least), most)}")
    return number


def real(text: str | None, name: str) -> float | None:
    """A number of the query, or None where it is left out. Raises: Refusal."""
    if text is None or text == "":
        return None
    try:
        number = float(text)
        if not isfinite(number):
            raise ValueError
    except ValueError:
        raise Refusal(400, f"{name}={text[:40]!r} is no number", f"{name}=0") from None
    return number
