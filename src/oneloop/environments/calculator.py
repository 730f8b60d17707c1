"""A calculator that the policy calls in its text: `[37*4]` is answered with `148;`, and whatever is no call is its
answer.
"""

from __future__ import annotations

from functools import partial

from oneloop.arithmetic import evaluated, parsed
from oneloop.environments.calls import Consulted

ERROR = "error"
"""What it says of something that is no expression, or divides by 0."""


def value_of(text: str) -> str:
    """Of an expression, exactly: `7`, `-3`, `3/4`."""
    expression = parsed(text.replace(" ", ""))
    value = None if expression is None else evaluated(expression)
    return ERROR if value is None else str(value)


def _said(call: str) -> str:
    return f"{value_of(call)};"


Calculator = partial(Consulted, "calculator", _said)
