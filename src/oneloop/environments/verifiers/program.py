"""What asks the policy where a taskset has no program of its own: verifiers' chat loop, in this process.

The loop that comes with verifiers is a script that is started for every episode; the one that it takes where nobody
says, `bash`, gives the model a shell besides. This one has the task's tools and no other.

Imported by verifiers, as the plugin `oneloop-chat`.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.harnesses.utils.compaction import bound_tool_message
from verifiers.v1.harnesses.utils.mcp import call_mcp, connect_mcp

__all__ = ["Chat"]
PLUGIN = "oneloop-chat"


class Chat(vf.Harness[vf.HarnessConfig]):
    """Asks until an answer calls no tool."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_MCP = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        messages = self._opening(data)
        async with AsyncExitStack() as stack:
            asked = await stack.enter_async_context(
                httpx.AsyncClient(timeout=None, headers={"Authorization": f"Bearer {secret}"})
            )
            servers = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
            tools, where, served = await connect_mcp({"mcpServers": servers}, stack)
            while True:
                body = {"model": ctx.model, "messages": messages, **({"tools": tools} if tools else {})}
                reply = await asked.post(f"{endpoint}/chat/completions", json=body)
                if reply.status_code != httpx.codes.OK:
                    return vf.ProgramResult(1, "", reply.text)
                said = reply.json()["choices"][0]["message"]
                messages.append(said)
                calls = said.get("tool_calls") or []
                if not calls:
                    return vf.ProgramResult(0, "", "")
                for call in calls:
                    content = await _result(call["function"], where, served)
                    messages.append(
                        bound_tool_message({"role": "tool", "tool_call_id": call["id"], "content": content})
                    )

    def _opening(self, data: vf.TaskData) -> list[dict[str, Any]]:
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            return [*messages, {"role": "user", "content": prompt}]
        return [*messages, *map(message_to_wire, prompt or ())]


async def _result(function: dict[str, Any], where: dict[str, tuple[str, str]], served: dict[str, Any]) -> Any:
    """What a tool says; what is wrong with a call is told to the model."""
    name = function["name"]
    if name not in where:
        return f"error: unknown tool {name!r}; there are {', '.join(where)}"
    try:
        arguments = json.loads(function["arguments"])
        if not isinstance(arguments, dict):
            return "error: tool arguments must be a JSON object"
        return await call_mcp(served, where, name, arguments)
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"
