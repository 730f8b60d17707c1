"""Memory that runs out in a pass: once, passes are made half as large, and the gradient stays what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_WORDS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")
"""How torch's allocator of the CPU, the kernel and devices beside CUDA say it."""


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what it says, be it of a device or of the machine."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


class Room:
    """The most tokens of one pass.

    Args:
        halves: whether they may become half as many, which happens once.
        told: that they did.
    """

    def __init__(self, tokens: int, halves: bool = True, told: Callable[[str], None] = lambda text: None) -> None:
        self.tokens = tokens
        self._halves, self._told = halves, told

    def __call__(self, passes: Callable[[int], T], again: Callable[[], None] = lambda: None) -> T:
        """What `passes` returns for so many tokens; `again` is called before it is called once more."""
        try:
            return passes(self.tokens)
        except (RuntimeError, MemoryError) as error:
            if not self._halves or self.tokens < 2 or not out_of_memory(error):
                raise
            said = str(error).partition("\n")[0] or type(error).__name__
        # out here, where what the failed pass held is free
        self._halves, self.tokens = False, self.tokens // 2
        again()
        self._told(f"memory ran out ({said}); passes have at most {self.tokens} tokens from here on: the same gradient")
        return passes(self.tokens)
