"""Settings of a run from a TOML recipe, checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from oneloop.config import Run
from oneloop.errors import ConfigError


def read_recipe(path: Path) -> dict[str, Any]:
    """A TOML recipe as keyword arguments of `Run`; `[set]` is a table of pieces of the algorithm.

    Raises: ConfigError naming the file, and for an unknown key the nearest one.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--recipe {path}: {error.strerror}. Fix: the path of a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--recipe {path}: not TOML ({error})") from error
    return from_table(table, str(path))


def from_table(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Checked keyword arguments of `Run` from a TOML table."""
    known = {field.name: field for field in fields(Run)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{source}: unknown key {key!r}.{hint}")
        values[name] = _typed(name, value, source)
    return values


def _typed(name: str, value: Any, source: str) -> Any:
    if name == "set" and isinstance(value, Mapping):
        return tuple(f"{path}={text}" for path, text in _flat(value))
    default = getattr(Run(), name)
    if isinstance(default, tuple):
        return tuple(value) if isinstance(value, list) else (value,)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    choices = get_args(get_type_hints(Run)[name])
    if isinstance(default, str) and choices and value not in choices:
        raise ConfigError(f"{source}: {name} = {value!r}; wanted one of {', '.join(map(repr, choices))}")
    if type(value) is not type(default):
        wanted = type(default).__name__
        raise ConfigError(f"{source}: {name} = {value!r} is of type {type(value).__name__}; wanted {wanted}")
    return value


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in table.items()
        for pair in (_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)])
    ]
