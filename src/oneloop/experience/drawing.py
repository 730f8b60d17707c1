"""How completions are drawn for requests: one value, which rollouts and evaluation are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from oneloop.errors import OneloopError
from oneloop.experience.episodes import Request, trajectory
from oneloop.ports import Drawn, Finished
from oneloop.types import Completion, Sampling, Trajectory

Decode = Callable[[Sequence[int]], str]
Generate = Callable[[Sequence[Sequence[int]], Sampling, Sequence[int], Finished], list[Completion]]
"""`RolloutEngine.generate`."""
Ended = Callable[[int, Trajectory], None]
"""Told a request's place and what was drawn for it, as soon as it is over."""


@runtime_checkable
class Draw(Protocol):
    """One trajectory for each request, in order, which nobody has scored. What it is depends on the request and the
    weights only."""

    def __call__(self, requests: Sequence[Request], sampling: Sampling, ended: Ended) -> Drawn: ...


@dataclass(frozen=True)
class OneTurn:
    """Implements `Draw`: an answer to a prompt is all there is."""

    generate: Generate
    decode: Decode

    def __call__(self, requests: Sequence[Request], sampling: Sampling, ended: Ended) -> Drawn:
        prompts, seeds = [request.prompt.tokens for request in requests], [request.seed for request in requests]
        made: dict[int, Trajectory] = {}

        def finished(index: int, completion: Completion) -> None:
            made[index] = trajectory(requests[index], completion, self.decode)
            ended(index, made[index])

        completions = self.generate(prompts, sampling, seeds, finished)
        check_all(len(completions), len(requests))
        pairs = zip(requests, completions, strict=True)
        return Drawn([made.get(n) or trajectory(*pair, self.decode) for n, pair in enumerate(pairs)])


def check_all(count: int, wanted: int) -> None:
    """Raises: OneloopError for an engine that lost completions: whose they were is not to be guessed."""
    if count != wanted:
        raise OneloopError(f"the engine returned {count} completions for {wanted} requests; none of them is used")
