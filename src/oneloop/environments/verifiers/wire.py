"""Between messages as OpenAI's clients write them, with tool calls as fields, and texts as a policy says them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from oneloop.environments.tools import CALL
from oneloop.types import Call

Message = Mapping[str, Any]


class Refused(Exception):
    """A request that no policy can answer."""


def plain(message: Message) -> dict[str, str]:
    """Role and text; calls stand in the text as the policy would have said them.

    Raises: ValueError for a message with something else than text.
    """
    text = _text(message.get("content"))
    said = [f"<tool_call>{json.dumps({'name': n, 'arguments': _read(a)})}</tool_call>" for n, a in _calls(message)]
    return {"role": str(message["role"]), "content": "\n".join(filter(None, (text, *said)))}


def answer(text: str, *, tools: bool, first: int) -> dict[str, Any]:
    """What the policy said, as a message of the assistant.

    Args:
        tools: whether there are any: otherwise the text is all it is. A call that cannot be read is text too.
        first: number of its first call, which names it.
    """
    calls = [_call(found, first + place) for place, found in enumerate(CALL.findall(text))] if tools else []
    if not calls or None in calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": CALL.sub("", text).strip() or None, "tool_calls": calls}


def same(one: Message, other: Message) -> bool:
    """Whether they say the same, however they were written."""
    return _content(one) == _content(other)


def begins(messages: Sequence[Message], known: Sequence[Message]) -> bool:
    """Whether a conversation goes on from what is known of it."""
    return len(messages) >= len(known) and all(map(same, messages, known))


def _content(message: Message) -> tuple[Any, ...]:
    return message.get("role"), _text(message.get("content")).strip(), [(name, _read(a)) for name, a in _calls(message)]


def made(said: Message, new: Sequence[Message]) -> tuple[Call, ...]:
    """The calls of a message, for the record, each with what answers it in those behind it; "" where nothing does."""
    answers = {
        message.get("tool_call_id"): _text(message.get("content")) for message in new if message["role"] == "tool"
    }
    calls = [(call["function"], answers.get(call["id"], "")) for call in said.get("tool_calls") or ()]
    return tuple(Call(name=of["name"], arguments=of["arguments"], answer=answer) for of, answer in calls)


def _calls(message: Message) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]


def _call(found: str, number: int) -> dict[str, Any] | None:
    try:
        asked = json.loads(found)
        function = {"name": str(asked["name"]), "arguments": json.dumps(asked.get("arguments") or {})}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return {"id": f"call_{number}", "type": "function", "function": function}


def _read(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    kinds = {part.get("type") for part in content}
    if kinds - {"text"}:
        raise ValueError(f"a message has {', '.join(sorted(map(str, kinds - {'text'})))}; the policy reads texts alone")
    return "\n".join(part["text"] for part in content)
