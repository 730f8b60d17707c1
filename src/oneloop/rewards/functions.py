"""Rule-based rewards in the native form: `reward(completions, **columns) -> list[float | None]`.

Model output is never evaluated as code: numbers are read by a regular expression.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_NUMBER = re.compile(r"[-+]?\d{1,400}(?:\.\d{1,400})?")


def exact_match(completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 where the completion is the answer, spaces around it aside; None for a row without an answer."""
    return [
        None if wanted is None else float(text.strip() == str(wanted).strip())
        for text, wanted in zip(completions, answer, strict=True)
    ]


def numeric_match(completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 where the last number in the completion equals the answer (7 = 7.0); None for a row without a number."""
    return [_same_number(text, wanted) for text, wanted in zip(completions, answer, strict=True)]


def _same_number(text: str, wanted: Any) -> float | None:
    target = _NUMBER.fullmatch(str(wanted).strip())
    if target is None:
        return None
    found = _NUMBER.findall(text)
    return float(bool(found) and Decimal(found[-1]) == Decimal(target.group()))


@dataclass(frozen=True)
class FormatReward:
    """1 where the whole completion matches a regular expression, else 0."""

    pattern: str

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [float(re.fullmatch(self.pattern, text) is not None) for text in completions]
