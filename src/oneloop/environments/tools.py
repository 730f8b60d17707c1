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
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from oneloop.errors import ConfigError
from oneloop.types import Step

Tool = Callable[..., Any]
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_KINDS: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def with_tools(*functions: Tool) -> Callable[[], ToolEnvironment]:
    """What makes environments in which these functions can be called; sync or async.

    Raises: ConfigError for a function without a docstring, or with a parameter without a type, or of one that JSON has
    not.
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
        return self._awaited(said) if any(map(inspect.isawaitable, said)) else _answer(said)

    def _called(self, call: str) -> Any:
        try:
            asked = json.loads(call)
            name, arguments = asked["name"], asked.get("arguments") or {}
            return self.functions[name](**arguments) if name in self.functions else _unknown(name, self.functions)
        except Exception as error:  # the model's to mend
            return _told(error)

    async def _awaited(self, said: Sequence[Any]) -> Step:
        return _answer([await _finished(each) if inspect.isawaitable(each) else each for each in said])


async def _finished(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except Exception as error:
        return _told(error)


def _answer(said: Sequence[Any]) -> Step:
    return Step(messages=[{"role": "tool", "content": str(each)} for each in said])


def _told(error: Exception) -> str:
    return f"error: {type(error).__name__}: {error}"


def _unknown(name: str, functions: Mapping[str, Tool]) -> str:
    return f"error: there is no tool {name!r}; there are {', '.join(functions)}"


def schema_of(function: Tool) -> Mapping[str, Any]:
    """The JSON schema of a function, in the form that chat templates take. Raises as `with_tools`."""
    about = inspect.getdoc(function)
    if not about:
        raise ConfigError(f"the tool {function.__name__} has no docstring, which tells a model of it. Fix: one line")
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    known = {name: _kind(function, name, hints.get(name)) for name in parameters}
    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    wanted = {"type": "object", "properties": known, "required": needed}
    return {"type": "function", "function": {"name": function.__name__, "description": about, "parameters": wanted}}


def _kind(function: Tool, name: str, hint: Any) -> dict[str, Any]:
    arguments, origin = get_args(hint), get_origin(hint)
    if hint in _KINDS:
        return {"type": _KINDS[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        kinds = [_kind(function, name, each) for each in arguments if each is not NoneType]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if list in (hint, origin):
        return {"type": "array", **({"items": _kind(function, name, arguments[0])} if arguments else {})}
    if dict in (hint, origin):
        return {"type": "object"}
    raise ConfigError(
        f"the tool {function.__name__}: parameter {name!r} has the type {hint}; wanted one that JSON has. Fix: "
        f"{name}: str, int, float, bool, list[...], dict, Literal[...]"
    )
