"""What can go wrong between a run and its server, and how long that is borne."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import uniform
from time import sleep
from typing import Any, TypeVar

T = TypeVar("T")


class Fault(Exception):
    """One request that failed, in words.

    Args:
        lasting: asking the same server again would change nothing.
        hopeless: neither would another start of it.
        cut: the connection failed: the server may have died.
        status: that HTTP answered.
    """

    def __init__(
        self, text: str, *, lasting: bool = False, hopeless: bool = False, cut: bool = False, status: int = 0
    ) -> None:
        super().__init__(text)
        self.lasting, self.hopeless, self.cut, self.status = lasting or hopeless, hopeless, cut, status

    def words(self) -> dict[str, Any]:
        """What `Fault(**words)` makes the same fault of, as JSON values."""
        kinds = {"lasting": self.lasting, "hopeless": self.hopeless, "cut": self.cut, "status": self.status}
        return {"text": str(self), **kinds}


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds, but for `tries`. With them a fault is told within a minute, the time of a start aside."""

    tries: int = 3
    """How often a request is made until its fault is the server's."""
    pause: float = 0.3
    """Before the second try; twice as long before the third, and up to half as long again by chance."""
    answer: float = 15.0
    """For a route that has little to do."""
    silence: float = 20.0
    """In which no completion ends and no token is drawn: the server stalls."""
    load: float = 20.0
    """For new weights, beside what their size takes."""
    start: float = 900.0
    """Until the server answers."""
    death: float = 2.0
    """In which a server whose connections fail may turn out to be dead."""
    look: float = 0.5
    """Between looks whether the server lives and moves."""


def tried(work: Callable[[], T], patience: Patience, going_on: Callable[[], None]) -> T:
    """What `work` returns, at one of its tries.

    Args:
        going_on: called before another try; raises where that is in vain.

    Raises: Fault, the last one.
    """
    for number in range(1, patience.tries + 1):
        try:
            return work()
        except Fault as fault:
            if fault.lasting or number == patience.tries:
                raise
        going_on()
        sleep(patience.pause * 2 ** (number - 1) * uniform(1.0, 1.5))
    raise AssertionError("unreachable")
