"""Rewards that come with oneloop, by name and settings: `exact_match`, `format?pattern=...`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

from oneloop.errors import ConfigError
from oneloop.rewards.code import UnitTests
from oneloop.rewards.functions import (
    FormatReward,
    GradedReward,
    LengthPenalty,
    OverlongPunishment,
    RepetitionPenalty,
    exact_match,
    numeric_match,
)
from oneloop.rewards.grading import Grader
from oneloop.rewards.worker import Limits, Pool

Function = Callable[..., list[float | None]]


@dataclass(frozen=True)
class MathBounds:
    """What one comparison of `math_match` may take."""

    timeout: float = 5.0
    """Seconds."""
    memory: int = 2048
    """MiB."""

    def __post_init__(self) -> None:
        if not self.timeout > 0 or self.memory < 256:
            raise ConfigError(f"math_match: timeout={self.timeout:g}, memory={self.memory}; wanted > 0 s, >= 256 MiB")


_SETTINGS: Mapping[str, type] = {
    "format": FormatReward,
    "length_penalty": LengthPenalty,
    "overlong": OverlongPunishment,
    "repetition_penalty": RepetitionPenalty,
}
_PLAIN: Mapping[str, Function] = {"exact_match": exact_match, "numeric_match": numeric_match}
_CODE: Mapping[str, bool] = {"unit_tests": False, "unit_tests_share": True}
_CODE_HOME = "oneloop.rewards.code:"
SHIPPED = (*_PLAIN, *_SETTINGS, "graded", "math_match", *_CODE)
"""The names. `graded` takes `right`, one of the plain ones, and the `pattern` of the right method."""


def short_name(spec: str) -> str:
    """`oneloop.rewards.code:unit_tests` is a shipped one: it bounds itself, and a worker has a limit for a batch."""
    return spec.removeprefix(_CODE_HOME)


def shipped(spec: str, limits: Limits | None = None) -> Function | Grader:
    """`NAME` or `NAME?setting=value&setting=value`, where %26 stands for an & inside a value.

    Args:
        limits: of what runs in a process of its own, `math_match`.

    Raises: ConfigError that names the setting which is wrong, and those there are.
    """
    name, _, query = spec.partition("?")
    given = _settings(spec, query)
    if name in _PLAIN:
        _check(spec, given, {})
        return _PLAIN[name]
    if name == "graded":
        return _graded(spec, given)
    if name in _CODE:
        return _unit_tests(spec, name, given)
    kind: Any = MathBounds if name == "math_match" else _SETTINGS[name]
    known = {field.name: field for field in fields(kind)}
    _check(spec, given, known)
    made = _made(kind, spec, given, known)
    return _math_match(made, limits or Limits()) if isinstance(made, MathBounds) else made


def _unit_tests(spec: str, name: str, given: Mapping[str, str]) -> UnitTests:
    known = {field.name: field for field in fields(UnitTests) if field.name != "share"}
    _check(spec, given, known)
    made = _made(UnitTests, spec, given, known)
    _ = made.isolation  # refused before a model is loaded
    return replace(made, share=_CODE[name])


def _math_match(bounds: MathBounds, limits: Limits) -> Pool:
    if find_spec("math_verify") is None:
        raise ConfigError('--reward math_match: math-verify is not installed. Fix: pip install "oneloop[math]"')
    limits = replace(limits, each=bounds.timeout, memory=bounds.memory)
    return Pool("oneloop.rewards.mathematical:math_match", limits)


def _graded(spec: str, given: Mapping[str, str]) -> GradedReward:
    right, pattern = given.get("right", "exact_match"), given.get("pattern", "")
    if set(given) - {"right", "pattern"} or right not in _PLAIN or not pattern:
        raise ConfigError(
            f"--reward {spec}: wanted graded?pattern=REGEX for the right method, and right={' or '.join(_PLAIN)}"
        )
    return GradedReward(right=_PLAIN[right], method=FormatReward(pattern))


def _settings(spec: str, query: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    for key, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"--reward {spec}: {key!r} has no value; wanted setting=value")
    return {key: unquote(text) for key, _, text in pairs}


def _check(spec: str, given: Mapping[str, str], known: Mapping[str, Field[Any]]) -> None:
    takes = ", ".join(known) or "no settings"
    for key in given:
        if key not in known:
            raise ConfigError(f"--reward {spec}: there is no setting {key!r}; {spec.partition('?')[0]} takes {takes}")
    missing = [name for name, field in known.items() if field.default is MISSING and name not in given]
    if missing:
        raise ConfigError(f"--reward {spec}: {missing[0]!r} is missing. Fix: {spec.partition('?')[0]}?{missing[0]}=...")


def _made(kind: Any, spec: str, given: Mapping[str, str], known: Mapping[str, Field[Any]]) -> Any:
    return kind(**{key: _typed(spec, key, text, known[key]) for key, text in given.items()})


def _typed(spec: str, key: str, text: str, field: Field[Any]) -> Any:
    readers = {"str": str, "int": int, "int | None": int, "float": float}
    reader = readers[field.type] if isinstance(field.type, str) else field.type
    try:
        return reader(text)
    except ValueError:
        raise ConfigError(f"--reward {spec}: {key} is {text!r}; wanted {reader.__name__}") from None
