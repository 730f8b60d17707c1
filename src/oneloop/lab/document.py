"""A report's file: the lab's page and what the server would have answered, in one piece that needs no server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oneloop.errors import ConfigError
from oneloop.lab.answers import encoded
from oneloop.lab.page import shown

ASSETS = Path(__file__).parent / "static" / "assets"


def document(title: str, answers: Mapping[str, Any]) -> str:
    """HTML whose only script and style are those of the lab; the browser refuses every other one, and every request.

    Args:
        answers: by route, as the page asks for them.

    Raises: ConfigError where the pages were not built.
    """
    script, style = _inside("app.js", "script"), _inside("style.css", "style")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    held = _data(encoded({"title": title, "answers": answers}).decode("utf-8"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{shown(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>\n'
        '<body><div id="app"></div><noscript>This report draws itself: it needs JavaScript, which is in this file, '
        'and no network.</noscript>\n'
        f'<script type="application/json" id="report">{held}</script>\n'
        f'<script type="module">{script}</script></body></html>\n'
    )  # fmt: skip


def _inside(name: str, tag: str) -> str:
    """A built file as it can stand between tags: nothing in it may end them. A carriage return changes its hash."""
    try:
        text = (ASSETS / name).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{ASSETS / name} cannot be read ({error.strerror}). Fix: make web") from error
    text = text.replace("\r\n", "\n")
    if "\r" in text or "\0" in text:
        raise ConfigError(f"{ASSETS / name} holds a carriage return or a zero byte. Fix: make web")
    if tag == "script":  # both stand in strings only, where \x3c is the same character
        return text.replace("</script", r"\x3c/script").replace("<!--", r"\x3c!--")
    return text


def _data(text: str) -> str:
    """JSON that cannot end its element, or open a comment: in JSON a < stands inside strings only."""
    return text.replace("<", r"\u003c")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
