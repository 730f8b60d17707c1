"""Settings that are numbers."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from typing import Any

from oneloop.errors import ConfigError


def check_finite(settings: Any) -> None:
    """Raises: ConfigError for a field of a dataclass that is NaN or infinite: no comparison with it means anything."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(number, float) and not isfinite(number):
                raise ConfigError(f"--{field.name.replace('_', '-')} is {number}; wanted a finite number")
