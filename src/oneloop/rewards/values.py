"""What a reward function may return: one finite number per completion, or None. No failure becomes a number."""

from __future__ import annotations

from collections.abc import Mapping, Set
from numbers import Complex, Real
from typing import Any

NO_VALUES = (str, bytes, bytearray, memoryview, Mapping, Set)
"""float() takes some of these, and all can be walked through, yet none holds a value per completion in order."""
LARGEST = 3.4028234663852886e38
"""Of float32, in which the trainer reckons; sums and squares of such numbers stay finite in Python's own."""


def length(returned: Any) -> int | None:
    """How many values `returned` holds in order; None where it is no list of values."""
    if isinstance(returned, NO_VALUES):
        return None
    try:
        return len(returned)
    except TypeError:  # a number, a generator, an array without dimensions
        return None


def real(value: Any) -> float | None:
    """A finite number; None for what is not one real number: text, arrays, NaN, what float32 has no place for, and
    complex numbers, of which float() may drop a half.
    """
    if not isinstance(value, (float, int)):  # what most are, and cheaper to ask for than the abstract types below
        is_complex = issubclass(type(value), Complex) and not issubclass(type(value), Real)
        if is_complex or isinstance(value, NO_VALUES) or (getattr(value, "shape", ()) or ()):
            return None
        if callable(detach := getattr(value, "detach", None)):  # a tensor: its value counts, not its graph
            value = detach()
    try:
        number = float(value)
    except Exception:
        return None
    return number if abs(number) <= LARGEST else None


def short(value: Any) -> str:
    """What a message shows of a value."""
    try:
        text = repr(value)
    except Exception:
        return "something without a repr"
    return text if len(text) <= 60 else f"{text[:57]}..."
