"""Rule-based rewards in the native form: `reward(completions, **columns) -> list[float | None]`.

Model output is never evaluated as code: numbers are read by a regular expression.
"""

import re
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class GradedReward:
    """1 for the right result, `partial` for the right method with a wrong result, 0 for neither.

    Args:
        right: 1 where the result is right, None where that cannot be told, which makes the whole None.
        method: 1 where the method, such as a format, is right.
    """

    right: Callable[..., list[float | None]]
    method: Callable[..., list[float | None]]
    partial: float = 0.5

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        results, methods = self.right(completions, **columns), self.method(completions, **columns)
        return [
            None if result is None else 1.0 if result == 1 else self.partial * float(method == 1)
            for result, method in zip(results, methods, strict=True)
        ]


@dataclass(frozen=True)
class LengthPenalty:
    """−(tokens of the completion) / `per`: a price on every token."""

    per: float = 1000.0

    def __post_init__(self) -> None:
        if not self.per > 0:
            raise ConfigError(f"LengthPenalty(per={self.per}): wanted a positive number of tokens that cost 1")

    def __call__(self, completions: Sequence[str], completion_ids: Sequence[Any], **columns: Any) -> list[float | None]:
        return [-len(ids) / self.per for ids in completion_ids]


@dataclass(frozen=True)
class OverlongPunishment:
    """0 up to `max_length − margin` tokens, then linear, −1 at and beyond `max_length`.

    Reference: DAPO, arXiv:2503.14476, eq. 13. The value `OverlongPenalty` of an algorithm is the same formula; this is
    for methods that have none.
    """

    max_length: int
    margin: int

    def __post_init__(self) -> None:
        if not 0 < self.margin <= self.max_length:
            raise ConfigError(
                f"OverlongPunishment(max_length={self.max_length}, margin={self.margin}): wanted 0 < margin ≤ length"
            )

    def __call__(self, completions: Sequence[str], completion_ids: Sequence[Any], **columns: Any) -> list[float | None]:
        start = self.max_length - self.margin
        return [-min(max(len(ids) - start, 0) / self.margin, 1.0) for ids in completion_ids]


@dataclass(frozen=True)
class RepetitionPenalty:
    """−(share of the n-grams of words that stood in the completion before): −0 for none, towards −1 for a loop."""

    words: int = 3

    def __post_init__(self) -> None:
        if self.words < 1:
            raise ConfigError(f"RepetitionPenalty(words={self.words}): wanted at least 1 word")

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [self._of(text.split()) for text in completions]

    def _of(self, words: Sequence[str]) -> float:
        grams = [tuple(words[start : start + self.words]) for start in range(len(words) - self.words + 1)]
        return len(set(grams)) / len(grams) - 1 if grams else 0.0
