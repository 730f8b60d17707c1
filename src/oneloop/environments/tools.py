"""Plain functions as tools that the model calls: schemas from their signatures, calls as JSON in the model's text.

    def weather(city: str, days: int = 1) -> str:
        '''Forecast of a city.'''

    Weather = with_tools(weather)                          --environment tools.py:Weather

The chat template is given the schemas. A call is `<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}
</tool_call>`, as Hermes, Qwen and others write it; a turn without one is the answer, and ends the episode.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from oneloop.environments.schemas import Tool, schema_of, unfit
from oneloop.errors import ConfigError
from oneloop.types import Call, Step

_FORM = 'wanted {"name": ..., "arguments": {...}}'
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def with_tools(*functions: Tool) -> Callable[[], ToolEnvironment]:
    """What makes environments in which these functions can be called; sync or async.

    Raises: ConfigError, as `schema_of`.
    """
    tools = {function.__name__: function for function in functions}
    if len(tools) < len(functions) or not functions:
        raise ConfigError(f"with_tools{tuple(tools)}: wanted functions, each with a name of its own")
    return partial(ToolEnvironment, tools, [schema_of(function) for function in functions])


@dataclass
class ToolEnvironment:
    """Answers calls, several in one turn one by one, and gives no rewards: `--reward` judges the text.

    What is wrong with a call, and what a tool raises, is told to the model as `error: ...`.
    """

    functions: Mapping[str, Tool]
    tools: Sequence[Mapping[str, Any]] = field(default=())

    def reset(self, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        prompt = row["prompt"]
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt

    def step(self, completion: str) -> Step | Awaitable[Step]:
        """Sync tools run in the environment's own thread, and hold up nobody; where one is async, all are awaited."""
        calls = CALL.findall(completion)
        if not calls:
            return Step(terminated=True)
        said = [self._called(call) for call in calls]
        return self._awaited(calls, said) if any(map(inspect.isawaitable, said)) else _answer(calls, said)

    def _called(self, call: str) -> Any:
        try:
            asked = json.loads(call)
            name, arguments = asked["name"], asked.get("arguments") or {}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return f"{_told(error)}; {_FORM}"
        wrong = self._unknown(name) or unfit(self.tools[list(self.functions).index(name)], arguments)
        if wrong:
            return f"error: {wrong}"
        try:
            return self.functions[name](**arguments)
        except Exception as error:  # the model's to mend
            return _told(error)

    def _unknown(self, name: Any) -> str:
        known = isinstance(name, str) and name in self.functions
        return "" if known else f"there is no tool {name!r}; there are {', '.join(self.functions)}"

    async def _awaited(self, calls: Sequence[str], said: Sequence[Any]) -> Step:
        return _answer(calls, [await _finished(each) if inspect.isawaitable(each) else each for each in said])


async def _finished(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except Exception as error:
        return _told(error)


def _answer(calls: Sequence[str], said: Sequence[Any]) -> Step:
    texts = [str(each) for each in said]
    made = [_made(call, text) for call, text in zip(calls, texts, strict=True)]
    return Step(messages=[{"role": "tool", "content": text} for text in texts], calls=made)


def _made(call: str, answer: str) -> Call:
    """For the record; what is no call of a tool stays as it was written."""
    try:
        asked = json.loads(call)
        name, arguments = asked["name"], asked.get("arguments") or {}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Call(name="", arguments=call.strip(), answer=answer)
    return Call(name=str(name), arguments=json.dumps(arguments, ensure_ascii=False), answer=answer)


def _told(error: Exception) -> str:
    return f"error: {type(error).__name__}: {error}"
