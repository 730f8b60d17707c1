"""Work that every rank has a part in and that can fail on one of them: then all of them raise, and none waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from oneloop import errors
from oneloop.errors import OneloopError

T = TypeVar("T")
_EVERYWHERE = "raised_on_every_rank"


@runtime_checkable
class Crew(Protocol):
    """What the ranks need of each other for it. `oneloop.ports.World` has it, and loads torch."""

    rank: int
    ranks: int

    def collect(self, mine: Sequence[T]) -> list[T]: ...

    def agree(self, value: T) -> T: ...


class Alone:
    """One process."""

    rank, ranks = 0, 1

    def collect(self, mine: Sequence[T]) -> list[T]:
        return list(mine)

    def agree(self, value: T) -> T:
        return value


def together(world: Crew, work: Callable[[], T]) -> T:
    """What `work` returns here, once it has ended well on every rank.

    Raises: what `work` raised on the first rank where it failed, as the same error where it is one of oneloop's. A
    rank on which something failed that oneloop does not explain raises that.
    """
    if world.ranks == 1:
        return work()
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = error
    told = world.collect([None if failure is None else _words(failure)])
    if failure is not None and not isinstance(failure, OneloopError):
        setattr(failure, _EVERYWHERE, True)
        raise failure
    for rank, words in enumerate(told):
        if words is not None:
            raise failure if rank == world.rank and failure is not None else _error(rank, words)
    return result  # pyright: ignore[reportReturnType]  # nothing failed, so it is there


def everywhere(error: Exception) -> bool:
    """Whether `together` raised what oneloop does not explain: the other ranks were told, and wait for nothing."""
    return getattr(error, _EVERYWHERE, False)


def by_first(world: Crew, work: Callable[[], T]) -> T:
    """What `work` returns on rank 0, which alone does it; what it raises there, everywhere. A value of JSON."""
    return world.agree(together(world, work if world.rank == 0 else _nothing))


def _nothing() -> Any:
    return None


def _words(error: Exception) -> dict[str, Any]:
    return {"kind": type(error).__name__, "text": str(error), "notes": getattr(error, "__notes__", [])}


def _error(rank: int, words: dict[str, Any]) -> OneloopError:
    kind = getattr(errors, words["kind"], None)
    if isinstance(kind, type) and issubclass(kind, OneloopError) and kind is not errors.Stopped:
        error = kind(words["text"])
    else:
        error = OneloopError(f"rank {rank}: {words['kind']}: {words['text']}")
    for note in words["notes"]:
        error.add_note(note)
    return error
