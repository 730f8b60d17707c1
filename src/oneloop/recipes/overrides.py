"""Change one piece of an algorithm by name: `kl.coef=0.01`, `kl=none`, `advantage=GroupRelative(ddof=1)`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from math import isfinite
from typing import Any, TypeVar

from oneloop.algorithms import ALGORITHMS, Critic, TrustRegion
from oneloop.errors import ConfigError
from oneloop.methods import check_name
from oneloop.objective import advantage, aggregate, correction, divergence, preference, select, shaping, surrogate
from oneloop.recipes.explain import Algorithm

Value = TypeVar("Value")

PIECES = {
    piece.__name__: piece
    for module, names in (
        (advantage, ("GAE", "GroupRelative", "LeaveOneOut", "BatchWhitened", "NoBaseline")),
        (surrogate, ("ScoreFunction", "Ratio", "ClippedRatio", "ClippedWeight")),
        (aggregate, ("TokenMean", "SequenceMean", "FixedLength")),
        (divergence, ("KL", "AdaptiveKL")),
        (shaping, ("OverlongPenalty",)),
        (select, ("MixedOutcome", "OverlongFilter")),
        (correction, ("TruncatedImportance",)),
        (preference, ("ImplicitReward", "LogOdds", "RewardHead", "LogSigmoid", "SquaredMargin", "Hinge")),
    )
    for piece in (getattr(module, name) for name in names)
} | {"Critic": Critic, "TrustRegion": TrustRegion}


def named_algorithm(name: str) -> Algorithm:
    check_name(name)
    return ALGORITHMS[name]


def overridden(algorithm: Algorithm, changes: Sequence[str]) -> Algorithm:
    """The algorithm with `path=value` changes applied in order."""
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: wanted piece=value, such as kl.coef=0.01")
        algorithm = _changed(algorithm, path.strip().split("."), _value(text.strip(), change), change)
    return algorithm


def _changed(value: Value, path: list[str], new: Any, change: str) -> Value:
    if not is_dataclass(value) or isinstance(value, type):
        raise ConfigError(f"--set {change}: there is no {path[0]!r} in {value!r}, which is deleted or has no parts")
    names = [field.name for field in fields(value)]
    if path[0] not in names:
        near = get_close_matches(path[0], names, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"--set {change}: {type(value).__name__} has {names}, not {path[0]!r}.{hint}")
    if len(path) > 1:
        new = _changed(getattr(value, path[0]), path[1:], new, change)
    try:
        return replace(value, **{path[0]: new})  # pyright: ignore[reportReturnType]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--set {change}: {error}") from error


def _value(text: str, change: str) -> Any:
    """A number, a word, none, or a piece with constant arguments. Nothing is evaluated."""
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        raise ConfigError(f"--set {change}: {text} is no number to reckon with; wanted a finite one")
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in PIECES:
            arguments = [_argument(argument, change) for argument in node.args]
            keywords = {str(word.arg): _argument(word.value, change) for word in node.keywords}
            return PIECES[node.func.id](*arguments, **keywords)
        if isinstance(node, ast.Name):
            return node.id
        value = ast.literal_eval(node)
        if isinstance(value, float) and not isfinite(value):
            raise ValueError("it is beyond what a float holds")
        return value
    except (SyntaxError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--set {change}: cannot read {text!r} ({error}). Wanted a number, none, or one of "
            f"{', '.join(PIECES)} with its arguments"
        ) from error


def _argument(node: ast.expr, change: str) -> Any:
    return _value(ast.unparse(node), change)
