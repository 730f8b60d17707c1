"""A calculator that the policy calls in its text: `[37*4]` is answered with `148;`, and whatever is no call is its
answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oneloop.arithmetic import evaluated, parsed
from oneloop.environments.calls import called, wanted
from oneloop.types import Step

ERROR = "error"
"""What it says of something that is no expression, or divides by 0."""


class Calculator:
    """Asks the row's `prompt`. 1 for a last completion that is the row's `answer`, else 0."""

    def reset(self, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._answer = wanted(row)
        return [{"role": "user", "content": str(row["prompt"])}]

    def step(self, completion: str) -> Step:
        call = called(completion)
        if call is None:
            return Step(reward=float(completion.strip() == self._answer), terminated=True)
        return Step(messages=[{"role": "tool", "content": f"{value_of(call)};"}])


def value_of(text: str) -> str:
    """Of an expression, exactly: `7`, `-3`, `3/4`."""
    expression = parsed(text.replace(" ", ""))
    value = None if expression is None else evaluated(expression)
    return ERROR if value is None else str(value)
