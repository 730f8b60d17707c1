"""One episode of an environment of verifiers, turned inside out: it runs as a task, and waits where it asks a model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, runtime_checkable

from oneloop.environments.verifiers.wire import Refused, answer, begins, made, plain
from oneloop.rewards.values import short
from oneloop.types import Step


@runtime_checkable
class Origin(Protocol):
    """What episodes are of."""

    async def running(self, row: Mapping[str, Any], minted: Any) -> asyncio.Task[Any]:
        """An episode of the row's task, begun; `minted` hears of its traces."""
        ...

    def expect(self, trace: Any, ask: Any) -> None: ...

    def forget(self, trace: Any) -> None: ...


class Episode:
    """Implements `oneloop.environments.Environment`, all of it in the loop that asynchronous environments share."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self.tools: Sequence[Mapping[str, Any]] = ()
        self._running: asyncio.Task[Any] | None = None
        self._asked: asyncio.Queue[list[dict[str, str]]] = asyncio.Queue()
        self._answer: asyncio.Future[Mapping[str, Any]] | None = None
        self._traces: list[Any] = []
        self._trace: Any = None
        self._known: list[Mapping[str, Any]] = []
        self._calls = 0
        self._refused = ""

    async def reset(self, row: Mapping[str, Any]) -> list[dict[str, str]]:
        self._running = await self._origin.running(row, self._minted)
        asked = await self._next()
        if asked is None:
            self._reward()  # raises what failed, where something did
            raise RuntimeError("the environment ended before it asked for anything")
        return asked

    async def step(self, completion: str) -> Step:
        assert self._answer is not None, "it was asked"
        said, waiting = answer(completion, tools=bool(self.tools), first=self._calls), self._answer
        self._calls += len(said.get("tool_calls") or ())
        self._known.append(said)
        before = len(self._known)
        self._answer = None
        waiting.set_result(said)
        asked = await self._next()
        calls = made(said, self._known[before:])
        if asked is not None:
            return Step(messages=asked, calls=calls)
        reward, cut = self._reward(), bool(self._trace.is_truncated)
        return Step(reward=reward, terminated=not cut, truncated=cut, calls=calls)

    async def close(self) -> None:
        for trace in self._traces:
            self._origin.forget(trace)
        if self._running is not None:
            self._running.cancel()
            if self._answer is not None and not self._answer.done():  # the server waits for its handlers
                self._answer.set_exception(Refused("the episode is over"))
            with suppress(asyncio.CancelledError, Exception):
                await self._running

    # what the environment does

    def _minted(self, trace: Any) -> None:
        self._traces.append(trace)
        self._origin.expect(trace, partial(self._ask, trace))

    async def _ask(self, trace: Any, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            new = self._new(trace, body)
        except ValueError as error:
            self._refused = str(error)
            raise Refused(str(error)) from error
        self._answer = asyncio.get_running_loop().create_future()
        self._asked.put_nowait(new)
        return await self._answer

    def _new(self, trace: Any, body: Mapping[str, Any]) -> list[dict[str, str]]:
        """What stands behind what the policy said last. Raises: ValueError for what is not one conversation."""
        seat, messages = getattr(trace.agent, "name", "") or "agent", body["messages"]
        if not getattr(trace.agent, "trainable", True):
            raise ValueError(f"the seat {seat!r} is not trained, and has no model of its own. Fix: pin its model")
        if self._trace is None:
            self._trace = trace
            self.tools = list(body.get("tools") or ())
        if trace is not self._trace:
            raise ValueError(
                f"the seat {seat!r} asks the policy too, in a conversation of its own, and an episode has one. "
                "Fix: pin its model"
            )
        if self._answer is not None:
            raise ValueError("it asks again before it is answered, and an episode is one conversation")
        if not begins(messages, self._known):
            raise ValueError(
                f"it changes what was said before: {short([plain(message) for message in messages])}; the tokens of a "
                "conversation stay"
            )
        new = messages[len(self._known) :]
        self._known = list(messages)
        return [plain(message) for message in new]

    async def _next(self) -> list[dict[str, str]] | None:
        """The next request; None: the episode is over."""
        assert self._running is not None, "it was begun"
        asked = asyncio.ensure_future(self._asked.get())
        await asyncio.wait({asked, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return asked.result()
        asked.cancel()
        return None

    def _reward(self) -> float:
        """Raises: RuntimeError for an episode that failed."""
        assert self._running is not None, "it was begun"
        episode = self._running.result()
        failed = [*episode.errors, *(error for trace in self._traces for error in trace.errors)]
        if self._refused or not episode.ok:
            words = f"{failed[-1].type}: {failed[-1].message}" if failed else "it is not ok, without an error"
            raise RuntimeError(self._refused or words)
        return float(self._trace.reward) if self._trace is not None else 0.0
