r"""The final answer in a text, as LaTeX that is safe and cheap to parse.

>>> final_answer(r"First 3, then \boxed{\frac{1}{2}}.")
'\\frac{1}{2}'
>>> final_answer("So the answer is: **1/2**.")
'1/2'
"""

import re

LONGEST = 512
"""Characters of an answer. A longer one is not read."""
DEEPEST = 12
"""Brackets inside brackets."""
_BOX = re.compile(r"\\f?boxed\s*\{")
_MATHS = re.compile(
    r"\$\$([^$]+)\$\$|(?<!\\)\$([^$\n]+)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]",
    re.DOTALL,
)
_SAID = re.compile(r"answer\s*(?:is|:)\s*:?|####", re.IGNORECASE)
_TAIL = 20_000
"""Characters at the end of a text in which its answer is looked for, so that a megabyte costs no more than a page."""
_ALLOWED = re.compile(r"[A-Za-z0-9\s+\-*/^_=<>|!%.,:;()\[\]{}\\&~]*")
_UNICODE = {
    "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "²": "^{2}",
    "³": "^{3}", "½": r"\frac{1}{2}", "\u00a0": " ", "\u202f": " ",
}  # fmt: skip
_ROOT = re.compile(r"(?<!\\)(?:sqrt\s*\(([^()]*)\)|√\s*(\d+|\([^()]*\)))")
_BARE = re.compile(r"(?<![\\A-Za-z])(pi|infinity)(?![A-Za-z])")
_REFUSED = re.compile(r"\\(?:sum|prod|i*int|oint|lim|operatorname|mathop|begin\s*\{(?!\w*(?:matrix|array|cases)\}))")
"""Commands whose value sympy may find by writing code and running it, or by work without end."""


def final_answer(text: str) -> str:
    r"""What stands in the last \boxed{...}; without one in the last $...$, \(...\) or \[...\]; without one after the
    last "answer is", "answer:" or "####"; and else the last line.

    A comma, a full stop and asterisks around it are not part of it.
    """
    text = text[-_TAIL:]
    boxes = list(_BOX.finditer(text))
    if boxes:
        return _trimmed(_braced(text, boxes[-1].end()))
    if maths := list(_MATHS.finditer(text)):
        return _trimmed(next(group for group in maths[-1].groups() if group is not None))
    if said := list(_SAID.finditer(text)):
        text = text[said[-1].end() :].lstrip(" \t*:\n")
        return _trimmed(text.partition("\n")[0])
    lines = text.split("\n")
    return _trimmed(next((line for line in reversed(lines) if line.strip()), ""))


def as_latex(answer: str) -> str | None:
    """The answer for a parser of LaTeX; None for what is too long, too deep, or no mathematics by its characters."""
    if len(answer) > LONGEST:
        return None
    answer = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or (found[2] or '').strip('()')}}}", answer)
    for sign, latex in _UNICODE.items():
        answer = answer.replace(sign, latex)
    answer = answer.replace("\\$", "").replace("$", "").replace("**", "^")
    answer = _BARE.sub(lambda found: r"\pi " if found[1] == "pi" else r"\infty ", answer)
    answer = re.sub(r"\s+", " ", answer.replace("*", r" \cdot ")).strip()
    if not answer or not _ALLOWED.fullmatch(answer) or _REFUSED.search(answer) or _depth(answer) > DEEPEST:
        return None
    return answer


def _braced(text: str, start: int) -> str:
    """Up to the brace that closes; to the end of the line where none does."""
    depth = 1
    for place in range(start, len(text)):
        if text[place - 1] == "\\" and text[place] in "{}":
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return text[start:].partition("\n")[0]


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _trimmed(text: str) -> str:
    text = text.strip().strip("*").strip()
    while text.endswith((".", ",", ";")):
        text = text[:-1].rstrip().rstrip("*")
    return text
