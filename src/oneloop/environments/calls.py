"""How environments are called in a text: by what stands in brackets at the end of a completion."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneloop.types import Call, Step

_CALL = re.compile(r"\[([^\[\]]{1,64})\]\s*")


@dataclass
class Consulted:
    """Asks the row's `prompt`. A completion that ends with `[...]` is answered; any other is the answer: 1 where it is
    the row's `answer`, else 0.

    Args:
        name: of the tool, for the record.
        answer: what it says to a call.
    """

    name: str
    answer: Callable[[str], str]
    _right: str = field(default="", init=False)

    def reset(self, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        self._right = wanted(row)
        return [{"role": "user", "content": str(row["prompt"])}]

    def step(self, completion: str) -> Step:
        call = called(completion)
        if call is None:
            return Step(reward=float(completion.strip() == self._right), terminated=True)
        said = self.answer(call)
        made = Call(name=self.name, arguments=call, answer=said)
        return Step(messages=[{"role": "tool", "content": said}], calls=[made])


def called(completion: str) -> str | None:
    """What a completion that ends with `[...]` calls for; None: it is an answer."""
    begin = completion.rfind("[")
    found = _CALL.fullmatch(completion, begin) if begin >= 0 else None
    return found[1].strip() if found else None


def wanted(row: Mapping[str, Any]) -> str:
    """The right answer of a row. Raises: ValueError for a row without one."""
    if row.get("answer") is None:
        raise ValueError("the row has no column answer")
    return str(row["answer"]).strip()
