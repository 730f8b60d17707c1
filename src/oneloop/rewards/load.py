"""Reward functions by name: `file.py:function` or `package.module:function`."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from oneloop.errors import ConfigError


@dataclass(frozen=True)
class NamedReward:
    """A reward function, the name its values are logged under, and its weight in the sum."""

    name: str
    function: Callable[..., Any]
    weight: float = 1.0


def load_reward(spec: str) -> NamedReward:
    """Raises: ConfigError that names the part of `spec` that is wrong."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(f"--reward {spec}: wanted file.py:function or package.module:function")
    module = _from_file(Path(place), spec) if place.endswith(".py") else _from_package(place, spec)
    function = getattr(module, name, None)
    if function is None:
        public = [word for word in dir(module) if callable(getattr(module, word)) and not word.startswith("_")]
        near = get_close_matches(name, public, 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(public) or 'no functions'}."
        raise ConfigError(f"--reward {spec}: {place} has no {name!r}.{hint}")
    if not callable(function):
        raise ConfigError(f"--reward {spec}: {name} is a {type(function).__name__}; wanted a function")
    return NamedReward(name=name, function=function)


def _from_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"--reward {spec}: no file {path} (looked in {Path.cwd()})")
    # named by its whole path, so that two files of one name are two modules; sys.path stays as it is
    loader = spec_from_file_location(f"oneloop_reward_{path.resolve()}", path)
    assert loader is not None and loader.loader is not None
    module = module_from_spec(loader)
    try:
        loader.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--reward {spec}: importing {path} raised {described(error)}") from error
    return module


def _from_package(name: str, spec: str) -> ModuleType:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"--reward {spec}: importing {name} raised {described(error)}. "
            "Fix: install the package, or name a file: rewards.py:function"
        ) from error


def described(error: BaseException) -> str:
    """Type, message and the place in the user's code that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if "importlib" not in frame.filename] or list(frames)
    where = f" at {outside[-1].filename}:{outside[-1].lineno}" if outside else ""
    return f"{type(error).__name__}: {error}{where}"
