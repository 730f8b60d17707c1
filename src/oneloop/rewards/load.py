"""Reward functions by name: `file.py:function` or `package.module:function`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from math import isfinite
from pathlib import Path
from types import ModuleType
from typing import Any

from oneloop.errors import ConfigError
from oneloop.rewards.blame import described
from oneloop.rewards.grading import Grader, InProcess


@dataclass(frozen=True)
class NamedReward:
    """A reward function, the name its values are logged under, and its weight in the sum."""

    name: str
    function: Any
    """In any of the forms of `oneloop.rewards.adapters`; or a `Grader`, which runs elsewhere."""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isfinite(self.weight):
            raise ConfigError(f"the weight of reward {self.name} is {self.weight}; wanted a finite number")

    @cached_property
    def grader(self) -> Grader:
        return self.function if isinstance(self.function, Grader) else InProcess(self.function)


def load_reward(spec: str) -> NamedReward:
    """Import it into this process.

    Raises: ConfigError that names the part of `spec` that is wrong.
    """
    place, name = split_spec(spec)
    function = found(spec)
    if isinstance(function, type):
        raise ConfigError(
            f"--reward {spec}: {name} is a class. Fix: {name.lower()} = {name}(...) in {place}, and its name"
        )
    if not callable(function) and not callable(getattr(function, "score_answer", None)):
        raise ConfigError(f"--reward {spec}: {name} is a {type(function).__name__}; wanted a function")
    return NamedReward(name=name, function=function)


def found(spec: str, flag: str = "--reward", what: str = "function") -> Any:
    """What stands under a name in a file or module of the user's.

    Args:
        flag, what: that named it, and what it should be, for messages.

    Raises: ConfigError.
    """
    place, name = split_spec(spec, flag, what)
    words = f"{flag} {spec}"
    module = _from_file(Path(place), words) if place.endswith(".py") else _from_package(place, words, what)
    value = getattr(module, name, None)
    if value is None:
        public = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        near = get_close_matches(name, public, 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(public) or 'no functions'}."
        raise ConfigError(f"{words}: {place} has no {name!r}.{hint}")
    return value


def split_spec(spec: str, flag: str = "--reward", what: str = "function") -> tuple[str, str]:
    """The file or module, and the name in it."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(f"{flag} {spec}: wanted file.py:{what} or package.module:{what}")
    return place, name


def _from_file(path: Path, words: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{words}: no file {path} (looked in {Path.cwd()}).{_near(path)}")
    path = path.resolve()
    # named after its whole path, so that two files of one name are two modules
    name = f"oneloop_reward_{sha256(str(path).encode()).hexdigest()[:16]}"
    loader = spec_from_file_location(name, path)
    assert loader is not None and loader.loader is not None
    module = module_from_spec(loader)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up by name
    try:
        with _siblings(path.parent):
            loader.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise ConfigError(f"{words}: importing {path} raised {described(error)}") from error
    return module


@contextmanager
def _siblings(folder: Path) -> Iterator[None]:
    """Modules beside a file can be imported while it is; afterwards the search path is as it was."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _near(path: Path) -> str:
    files = [item.name for item in path.parent.glob("*.py")] if path.parent.is_dir() else []
    near = get_close_matches(path.name, files, 3)
    return f" There is: {', '.join(near)}." if near else ""


def _from_package(name: str, words: str, what: str) -> ModuleType:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{words}: importing {name} raised {described(error)}. Fix: install the package, or name a file: "
            f"file.py:{what}"
        ) from error
