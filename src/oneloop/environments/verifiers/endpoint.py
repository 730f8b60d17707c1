"""A server on this machine that speaks OpenAI's chat completions, and whose answers are the policy's."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from time import time
from typing import Any

from aiohttp import web

from oneloop.environments.verifiers.wire import Refused

Ask = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""What answers a request's body with a message of the assistant. Raises: Refused."""
SESSION = "X-Session-ID"
"""Header in which verifiers sends the id of the trace that a request belongs to."""
MOST = 64 * 2**20
"""Bytes of a request."""


class Endpoint:
    """One for all episodes: a request is of the one that expects its trace."""

    def __init__(self) -> None:
        self._expected: dict[str, Ask] = {}
        self._runner: web.AppRunner | None = None
        self.address = ""

    async def start(self) -> None:
        application = web.Application(client_max_size=MOST)
        application.router.add_post("/v1/chat/completions", self._completed)
        runner = self._runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def expect(self, trace: str, ask: Ask) -> None:
        self._expected[trace] = ask

    def forget(self, trace: str) -> None:
        self._expected.pop(trace, None)

    async def _completed(self, request: web.Request) -> web.Response:
        ask, body = self._expected.get(request.headers.get(SESSION, "")), await request.json()
        if ask is None:
            return _refusal("no episode that runs here asks for this")
        try:
            message = await ask(body)
        except Refused as error:
            return _refusal(str(error))
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        if body.get("stream"):
            return web.Response(text=_events(body, message, reason), content_type="text/event-stream")
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return web.json_response({**_head(body, "chat.completion"), "choices": [choice]})


def _refusal(text: str) -> web.Response:
    return web.json_response({"error": {"message": text, "type": "invalid_request_error"}}, status=400)


def _head(body: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "oneloop", "object": kind, "created": int(time()), "model": body.get("model", "")}


def _events(body: Mapping[str, Any], message: Mapping[str, Any], reason: str) -> str:
    """The whole answer as a stream of two parts."""
    calls = [{"index": place, **call} for place, call in enumerate(message.get("tool_calls") or ())]
    delta = {**message, "tool_calls": calls} if calls else message
    head = _head(body, "chat.completion.chunk")
    parts = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
    ]
    return "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"
