"""Shapes and types are checked in tests only: jaxtyping + beartype see every call into oneloop.

jaxtyping binds the arguments of each call anew and checks them twice, for the sake of shapes. Functions without a shape
are left to beartype alone, which takes less than half the time; of those with one, a test checks the first calls and
then one in so many, since a run calls some of them ten thousand times.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from functools import partial, wraps
from types import FunctionType, SimpleNamespace
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

NUMBERS = BeartypeConf(is_pep484_tower=True)
"""An int is a float, as PEP 484 has it."""
with_shapes = jaxtyping.jaxtyped
FIRST, THEN = 32, 16
"""In each test, so many calls of a function with shapes are checked, and then one in so many."""
calls: Counter[int] = Counter()
"""Of each such function, in the test that runs, by the address of its code: functions made anew are let go of."""
UNCHECKED = "ONELOOP_TESTS_UNCHECKED"
"""Set where mutants are tried. The checks are most of what a test process takes to begin; and that a test fails is
enough, without the smallest example that it fails for."""


def install() -> None:
    jaxtyping.jaxtyped = checked
    jaxtyping.install_import_hook("oneloop", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


def checked(one: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """In place of `jaxtyping.jaxtyped`, which its import hook writes before each class and function."""
    if one is None:
        return partial(checked, typechecker=typechecker)
    if isinstance(one, FunctionType):
        hints = dict(found(one.__annotations__, one.__globals__))
        if any(map(has_shape, hints.values())):
            return sampled(one, with_shapes(one, typechecker=typechecker))
        one.__annotations__ = hints
        return beartype(conf=NUMBERS)(one) if hints else one
    if isinstance(one, type):
        if is_dataclass(one) and isinstance(one.__init__, FunctionType):
            one.__init__ = checked(one.__init__, typechecker=typechecker)
        return one
    return with_shapes(one, typechecker=typechecker)


def sampled(plain: FunctionType, strict: Callable[..., Any]) -> Callable[..., Any]:
    code = id(plain.__code__)

    @wraps(strict)
    def call(*arguments: Any, **options: Any) -> Any:
        calls[code] = number = calls[code] + 1
        return (strict if number <= FIRST or number % THEN == 0 else plain)(*arguments, **options)

    return call


def has_shape(hint: Any) -> bool:
    inner = hint if isinstance(hint, list) else get_args(hint)
    return getattr(hint, "__module__", "") == "jaxtyping" or any(map(has_shape, inner))


def found(hints: dict[str, Any], scope: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Without those whose names only type checkers import."""
    for name, hint in hints.items():
        with suppress(Exception):
            yield name, get_type_hints(SimpleNamespace(__annotations__={name: hint}), scope, include_extras=True)[name]
