"""Faults of a server that several ranks share: each is the same on all of them, so that their next calls are too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from oneloop.errors import EngineError
from oneloop.rollout.vllm.faults import Fault
from oneloop.together import Crew, by_first

T = TypeVar("T")


def asked(crew: Crew, work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, which alone does it: a value of JSON.

    Raises: the Fault that it met there, on every rank; what else it raised there, as `by_first` does.
    """

    def outcome() -> dict[str, Any]:
        try:
            return {"value": work()}
        except Fault as fault:
            return {"fault": fault.words()}

    told = by_first(crew, outcome)
    if "fault" in told:
        raise Fault(**told["fault"])
    return told["value"]


def each(crew: Crew, work: Callable[[], object]) -> None:
    """`work` on every rank, ended on all when it is on one.

    Raises: the Fault of the first rank that met one, on every rank. Where something else failed on some rank, the step
    is lost, and nobody shall mend the server: it is raised there, and an EngineError where there was a Fault.
    """
    if crew.ranks == 1:
        work()
        return
    failure: Exception | None = None
    try:
        work()
    except Exception as error:
        failure = error
    everyone = crew.collect([_words(failure)])
    if failure is not None and not isinstance(failure, Fault):
        raise failure
    if OTHERWISE in everyone:
        if failure is not None:
            raise EngineError(str(failure)) from None
        return
    for rank, words in enumerate(everyone):
        if words is not None:
            first: dict[str, Any] = words | {"text": f"rank {rank}: {words['text']}"}
            raise Fault(**first) from None


OTHERWISE: dict[str, Any] = {}


def _words(failure: Exception | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return failure.words() if isinstance(failure, Fault) else OTHERWISE
