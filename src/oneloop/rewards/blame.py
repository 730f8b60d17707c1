"""Says what an exception was and where in the user's code it began."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from traceback import walk_tb

_OURS = str(Path(__file__).parents[1])
_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def described(error: BaseException) -> str:
    """Type, message and place; with the exception at the bottom where the user's code chained them by `from`."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    return _one(error) if root is error else f"{_one(error)}, caused by {_one(root)}"


def _one(error: BaseException) -> str:
    text, place = _message(error), _place(error)
    return type(error).__name__ + (f": {text}" if text else "") + (f" at {place}" if place else "")


def _message(error: BaseException) -> str:
    # the text of a SyntaxError repeats its file and line
    try:
        return error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:
        return "(its message cannot be read)"


def _place(error: BaseException) -> str:
    """file:line of the deepest frame that the user wrote; of a library called for them where there is none."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return f"{error.filename}:{error.lineno}"
    return place_of([(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)])


def deepest(trace: str) -> str:
    """The same, from the text that faulthandler writes."""
    found = re.findall(r'File "(.*)", line (\d+) in', trace)
    return place_of([(file, int(line)) for file, line in reversed(found)])


def place_of(frames: Sequence[tuple[str, int]]) -> str:
    """The same of files and lines, the outermost first."""
    # what called the user's code: this package, its event loop, the import machinery
    called = [place for place in frames if not place[0].startswith((str(Path(__file__).parent), "<"))]
    written = [place for place in called if not place[0].startswith((_OURS, *_LIBRARIES))]
    deepest = (written or [place for place in called if "importlib" not in place[0]])[-1:]
    return "".join(f"{file}:{line}" for file, line in deepest)
