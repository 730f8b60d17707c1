"""JSON schemas of functions, from their signatures and docstrings, and whether a call's arguments fit one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from oneloop.errors import ConfigError

Tool = Callable[..., Any]
_KINDS: Mapping[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_LISTS = (list, Sequence)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


def schema_of(function: Tool) -> Mapping[str, Any]:
    """In the form that chat templates take. What a docstring says under `Args:` stands with its parameter.

    Raises: ConfigError for a function without a docstring, or with a parameter that has no type or no name, or a type
    that JSON has not.
    """
    about, told = _documented(function)
    if not about:
        raise ConfigError(f"the tool {function.__name__} has no docstring, which tells a model of it. Fix: one line")
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigError(
                f"the tool {function.__name__}: parameter {str(parameter)!r} cannot be given by name, as calls do. "
                "Fix: parameters with names"
            )
    known = {
        name: _kind(function, name, hints.get(name)) | ({"description": told[name]} if name in told else {})
        for name in parameters
    }
    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    wanted = {"type": "object", "properties": known, "required": needed}
    return {"type": "function", "function": {"name": function.__name__, "description": about, "parameters": wanted}}


def unfit(schema: Mapping[str, Any], arguments: Any) -> str:
    """What is wrong with the arguments of a call, for whoever made it; "" where nothing is.

    None is what a parameter that need not be given is given instead.
    """
    wanted = schema["function"]["parameters"]
    if not isinstance(arguments, Mapping):
        return f"the arguments are {arguments!r}; wanted an object with {', '.join(wanted['properties']) or 'nothing'}"
    return next(_wrong(wanted, arguments), "")


def _wrong(wanted: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    kinds, needed = wanted["properties"], wanted["required"]
    for name in needed:
        if name not in arguments:
            yield f"the argument {name!r} is missing"
    for name, value in arguments.items():
        if name not in kinds:
            yield f"there is no argument {name!r}; there are {', '.join(kinds) or 'none'}"
        elif not (_fits(kinds[name], value) or (value is None and name not in needed)):
            yield f"the argument {name!r} is {value!r}; wanted {_words(kinds[name])}"


def _fits(kind: Mapping[str, Any], value: Any) -> bool:
    if "anyOf" in kind:
        return any(_fits(one, value) for one in kind["anyOf"])
    if "enum" in kind:
        return value in kind["enum"]
    if (isinstance(value, bool) and kind["type"] != "boolean") or not isinstance(value, _TYPES[kind["type"]]):
        return False
    return not isinstance(value, list) or "items" not in kind or all(_fits(kind["items"], one) for one in value)


def _words(kind: Mapping[str, Any]) -> str:
    if "anyOf" in kind:
        return " or ".join(map(_words, kind["anyOf"]))
    if "enum" in kind:
        return f"one of {', '.join(map(repr, kind['enum']))}"
    return kind["type"] + (f" of {_words(kind['items'])}" if "items" in kind else "")


def _kind(function: Tool, name: str, hint: Any) -> dict[str, Any]:
    arguments, origin = get_args(hint), get_origin(hint)
    if hint in _KINDS:
        return {"type": _KINDS[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        kinds = [_kind(function, name, each) for each in arguments if each is not NoneType]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if hint in _LISTS or origin in _LISTS:
        return {"type": "array", **({"items": _kind(function, name, arguments[0])} if arguments else {})}
    if dict in (hint, origin):
        return {"type": "object"}
    raise ConfigError(
        f"the tool {function.__name__}: parameter {name!r} has the type {hint}; wanted one that JSON has. Fix: "
        f"{name}: str, int, float, bool, list[...], dict, Literal[...]"
    )


def _documented(function: Tool) -> tuple[str, dict[str, str]]:
    """What it does, and what its docstring says of each parameter."""
    text = inspect.getdoc(function) or ""
    marks = list(_SECTION.finditer(text))
    starts = [*(mark.start() for mark in marks), len(text)]
    about = text[: starts[0]].strip()
    for mark, end in zip(marks, starts[1:], strict=True):
        if mark[1] in ("Args", "Arguments", "Parameters"):
            return about, dict(_arguments(text[mark.end() : end]))
    return about, {}


def _arguments(body: str) -> Iterator[tuple[str, str]]:
    """`name: what it is`, or `name (type): ...`, which may go on in lines that stand further in."""
    lines = [line for line in body.splitlines() if line.strip()]
    depth = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    name, words = "", list[str]()
    for line in lines:
        found = _ARGUMENT.match(line.strip()) if len(line) - len(line.lstrip()) == depth else None
        if found:
            if name:
                yield name, " ".join(words)
            name, words = found[1], [found[2]]
        else:
            words.append(line.strip())
    if name:
        yield name, " ".join(words)
