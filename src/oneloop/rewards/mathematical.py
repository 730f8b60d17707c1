"""Mathematical equality by math-verify: 1/2 is \\frac{1}{2} is 0.5.

It runs in a worker of its own only: one comparison may take any time and memory, and both are bounded from outside.
math-verify reads plain expressions with sympy's parse_expr, which evaluates Python. So its own search for answers is
not used: the answer is found by `final_answer`, and only the LaTeX parser, a grammar, ever sees what a model wrote.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from latex2sympy2_extended import NormalizationConfig, latex2sympy, latex2sympy2, normalize_latex
from math_verify import parser
from math_verify.grader import should_treat_as_complex, verify
from sympy import Float, Integer, Number
from sympy.parsing import sympy_parser

from oneloop.rewards.final_answer import as_latex, final_answer

_CLEANING = NormalizationConfig(
    basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none", equations=False
)
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_NAMES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "det", "gcd", "lcm", "max", "min", "mod"))
_UNREADABLE = object()
_MADE = Number.__new__
_DIGITS = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


def _number(kind: type[Number], *given: Any) -> Any:
    """sympy's Number of a text without sympify, which evaluates it: the LaTeX parser makes its numbers by this."""
    if len(given) != 1 or not isinstance(given[0], str):
        return _MADE(kind, *given)
    if not _DIGITS.fullmatch(given[0]):
        raise ValueError(f"{given[0]!r} is no number")
    return Float(given[0]) if "." in given[0] else Integer(int(given[0]))


def _refuse(*given: Any, **options: Any) -> Any:
    _refused.append(error := RuntimeError("text came to sympy's parse_expr, which evaluates it"))
    raise error


_refused: list[RuntimeError] = []
import_module(
    "sympy.physics.units"
)  # which sympy would load within the first answer's time, and which parses constants
# This process has no other work: in it no text is evaluated, whichever way through sympy it takes.
Number.__new__ = _number  # pyright: ignore[reportAttributeAccessIssue]
for _module in (sympy_parser, latex2sympy2, parser):
    _module.parse_expr = _refuse  # pyright: ignore[reportAttributeAccessIssue]
# It says once that it has no time limit of its own: the worker's is the limit.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def math_match(completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 where the final answer in the completion equals the row's as mathematics.

    0 also where there is no answer in it that can be read. None for a row whose own answer cannot be read.

    Raises: what a comparison raises; it says nothing about the answer.
    """
    return [_same(text, wanted) for text, wanted in zip(completions, answer, strict=True)]


def _same(text: str, wanted: Any) -> float | None:
    gold, said = _gold(wanted), final_answer(text)
    if not gold:
        return None
    if _plain(said) == _plain(gold):
        return 1.0
    if not re.search(r"[0-9\\]", gold) and _WORD.search(gold):
        return 0.0  # words: as mathematics they would be products of letters, in which the order does not count
    expected, found = _parsed(gold), _parsed(said)
    if expected is _UNREADABLE:
        return None
    if found is _UNREADABLE:
        return 0.0
    _refused.clear()
    equal = verify(expected, found, timeout_seconds=None, raise_on_error=True)
    if _refused:  # and sympy went on without what it was refused
        raise _refused[0]
    return float(equal)


def _gold(wanted: Any) -> str:
    """The row's answer: all of it, or what it marks as the answer."""
    text = "" if wanted is None else str(wanted).strip()
    return final_answer(text) if re.search(r"\\boxed|\$.*\$|####|\\\(", text, re.DOTALL) else text.rstrip(".")


def _plain(text: str) -> str:
    """Words as they are compared."""
    return " ".join(_TEXT.sub(r"\1", text).casefold().split())


@lru_cache(maxsize=4096)
def _parsed(answer: str) -> Any:
    latex = as_latex(answer)
    if latex is None or (not re.search(r"[0-9\\]", latex) and set(_WORD.findall(latex)) - _NAMES):
        return _UNREADABLE
    try:
        clean = normalize_latex(latex, config=_CLEANING)
        return latex2sympy(
            clean,
            is_real=not should_treat_as_complex(clean),
            convert_degrees=False,
            normalization_config=None,
        )
    except (MemoryError, RecursionError):
        raise
    except Exception:  # its parser's complaints have no type of their own
        return _UNREADABLE
