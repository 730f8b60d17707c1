"""Chat templates before a tokenizer has them: the file of --chat-template, and what --chat-template-kwargs adds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from oneloop.errors import ConfigError

Value = bool | int | float | str
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_MARKER = re.compile(r"\{%[-+]?\s*generation\b")
PLAIN = (
    "{%- for message in messages -%}{{- message.content -}}"
    "{%- if message.role == 'assistant' -%}{{- eos_token -}}"
    "{%- elif not loop.last and loop.nextitem.role != 'assistant' -%}{{- '\n' -}}{%- endif -%}{%- endfor -%}"
)
"""Conversations of a tokenizer without a chat template: the texts one behind the other. A turn of the model's ends with
its end token, and what others say in a row stands on lines of its own."""
GIVEN_BY_ROWS = frozenset({"messages", "tools", "add_generation_prompt"})


class _Generation(Extension):
    """The tag `{% generation %}`, which transformers adds to Jinja; here it is only read."""

    tags: ClassVar[set[str]] = {"generation"}  # pyright: ignore[reportIncompatibleVariableOverride]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def read_template(path: str) -> str:
    """The text of a chat template.

    Raises: ConfigError for a file that is not there, is not text, or is not Jinja; with the line.
    """
    try:
        source = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--chat-template {path}: not UTF-8 text ({error.reason}). Fix: a Jinja file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--chat-template {path}: {reason}. Fix: the path of a Jinja file") from None
    if not source.strip():
        raise ConfigError(f"--chat-template {path}: the file is empty. Fix: a Jinja file")
    try:
        jinja = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
        jinja.compile(source, raw=True)
    except TemplateSyntaxError as error:
        lines = source.splitlines()
        line = lines[error.lineno - 1].strip() if 0 < error.lineno <= len(lines) else ""
        raise ConfigError(
            f"--chat-template {path}:{error.lineno}: not Jinja ({error.message}): {line[:80]!r}. Fix: mend that line"
        ) from None
    return source


def read_variables(words: Sequence[str]) -> dict[str, Value]:
    """`enable_thinking=false effort=high` by name: true and false, numbers, and everything else as text.

    >>> read_variables(["enable_thinking=false", "budget=512", "effort=high"])
    {'enable_thinking': False, 'budget': 512, 'effort': 'high'}

    Raises: ConfigError for a word without a name, for one that rows give, and for one that is there twice.
    """
    values: dict[str, Value] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ConfigError(f"--chat-template-kwargs {word}: wanted NAME=VALUE, such as enable_thinking=false")
        if name in GIVEN_BY_ROWS:
            raise ConfigError(f"--chat-template-kwargs {word}: the data gives {name}. Fix: leave it out")
        if name in values:
            raise ConfigError(f"--chat-template-kwargs {word}: {name} is there twice. Fix: one of them")
        values[name] = _value(text)
    return values


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    number = json.loads(text) if _NUMBER.fullmatch(text) else inf
    return number if isfinite(number) else text


def with_defaults(template: str, values: Mapping[str, Value]) -> str:
    """The template with these values for variables that nobody gives it: they travel with it, wherever it is saved."""
    lines = [
        f"{{% if {name} is not defined %}}{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}{{% endif %}}\n"
        for name, value in values.items()
    ]
    return "".join(lines) + template


def marks_answers(template: str) -> bool:
    """Whether the template itself says what the assistant generates, with `{% generation %}`."""
    return _MARKER.search(template) is not None
