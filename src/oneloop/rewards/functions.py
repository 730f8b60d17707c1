"""Rule-based rewards in the native form: `reward(completions, **columns) -> list[float | None]`.

Model output is never evaluated as code: numbers are read by a regular expression.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from oneloop.errors import ConfigError

_NUMBER = re.compile(
    r"""
    (?: (?<![0-9)]) [-+] )?                         # in 8-5 the 5 is not negative
    (?:
        (?: [0-9]{1,3} (?: ,[0-9]{3} )+ (?![0-9]) | [0-9]+ )   # 1,234 or 1234
        (?: / [0-9]+ | (?: \. [0-9]+ )? (?: [eE] [-+]? [0-9]{1,3} (?![0-9]) )? )
        | \. [0-9]+                                 # .5
    )
    """,
    re.VERBOSE,
)


def exact_match(completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 where the completion is the answer, spaces around it aside; None for a row without an answer."""
    return [
        None if wanted is None else float(text.strip() == str(wanted).strip())
        for text, wanted in zip(completions, answer, strict=True)
    ]


def numeric_match(completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 where the last number in the completion equals the answer, exactly (7 = 7.0, 0.5 = 1/2, 1,234 = 1234).

    None for a row whose answer is not a number.
    """
    return [_same_number(text, wanted) for text, wanted in zip(completions, answer, strict=True)]


def _same_number(text: str, wanted: Any) -> float | None:
    target = _NUMBER.fullmatch(str(wanted).strip())
    value = _exact(target.group()) if target else None
    if value is None:
        return None
    found = _NUMBER.findall(text)
    return float(bool(found) and _exact(found[-1]) == value)


def _exact(digits: str) -> Fraction | None:
    """None where the digits name no number that could be an answer: 1/0, or thousands of digits."""
    try:
        return Fraction(digits.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


@dataclass(frozen=True)
class FormatReward:
    """1 where the whole completion matches a regular expression, else 0."""

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"FormatReward({self.pattern!r}) is no regular expression: {error}") from None

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [float(re.fullmatch(self.pattern, text) is not None) for text in completions]
