"""Words that no file and no page may show: keys and passwords that stand in settings, commands and failures."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "[hidden]"
_KEYS = {"token", "key", "apikey", "secret", "password", "passwd", "credential", "credentials", "authorization"}
"""Words of a name whose value is hidden. Whole words: `max_tokens` is a number of tokens."""
_SHAPES = re.compile(
    r"hf_[A-Za-z0-9]{8,}"  # Hugging Face
    r"|sk-[A-Za-z0-9_-]{8,}"  # OpenAI and others
    r"|AKIA[0-9A-Z]{12,}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{16,}"  # GitHub
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password@host
)
_NAMED = re.compile(
    r"(?i)\b([\w.-]*(?:token|key|secret|password|passwd|authorization))"
    r"(['\"]?\s*[=:]\s*(?:bearer\s+|basic\s+)?|\s+)(['\"]?)([^\s'\",;]+)"
)
SHORTEST = 8
"""Characters of a secret in an environment variable: what is shorter stands in too many words."""
_LONG = re.compile(r"[0-9A-Za-z+/=_-]{16,}")


def redacted(value: Any, name: str = "") -> Any:
    """The same value with what looks like a secret hidden, by its shape or by the name under which it stands."""
    if isinstance(value, str):
        return HIDDEN if value and _is_key(name) else _text(value)
    if isinstance(value, Mapping):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return _words(value, name)
    return value


def _words(values: Sequence[Any], name: str) -> list[Any]:
    """A list; in a command the word after `--hf-token` is the secret."""
    shown, before = [], ""
    for value in values:
        flag = before if isinstance(before, str) and before.startswith("--") and "=" not in before else ""
        shown.append(redacted(value, flag or name))
        before = value
    return shown


def _is_key(name: str) -> bool:
    return not _KEYS.isdisjoint(re.split(r"[^a-z]+", name.lower()))


def _text(text: str) -> str:
    for secret in _of_the_environment():
        text = text.replace(secret, HIDDEN)
    return _NAMED.sub(_named, _SHAPES.sub(HIDDEN, text))


def _of_the_environment() -> list[str]:
    """What variables such as HF_TOKEN hold, whatever it looks like; the longest first."""
    held = {
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST and re.split(r"[^a-z]+", name.lower())[-1] in _KEYS and value[0] not in "/~."
    }
    return sorted(held, key=len, reverse=True)


def _named(found: re.Match[str]) -> str:
    """`token=...` in the midst of words. Prose such as "the key is" stays: a secret is long, or follows a sign."""
    name, between, quote, value = found.groups()
    sure = between.strip() or name.startswith("--")
    if not _is_key(name) or not (sure or _LONG.fullmatch(value)):
        return found[0]
    return f"{name}{between}{quote}{HIDDEN}"
