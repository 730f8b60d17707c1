"""The program that a completion holds."""

from __future__ import annotations

import re

_PYTHON = ("python", "py", "python3")
_OPENING = re.compile(r"```([^`]*)")
_CLOSING = "```"


def program(completion: str) -> str:
    """The last fence labelled as Python; without one, the last that has no label; without one, the whole text.

    A fence ends at the first line that is just three backticks, or at the end of the text.
    """
    labelled = unlabelled = None
    label, inside = None, list[str]()
    for line in [*completion.split("\n"), _CLOSING]:  # the text's end ends a fence too
        if label is None:
            if opening := _OPENING.fullmatch(line.rstrip()):
                label, inside = (opening.group(1).split() or [""])[0].lower(), []
        elif line.rstrip() != _CLOSING:
            inside.append(line)
        else:
            if label in _PYTHON:
                labelled = inside
            elif not label:
                unlabelled = inside
            label = None
    found = unlabelled if labelled is None else labelled
    return completion if found is None else "\n".join(found)
