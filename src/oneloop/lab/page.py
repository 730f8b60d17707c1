"""Words of a run in HTML that Python writes; on the lab's own pages they are text nodes."""

from __future__ import annotations

from html import escape


def shown(text: str) -> str:
    """Escaped, with what cannot be seen (control characters, changes of direction, lone surrogates) spelled out."""
    return escape("".join(c if c.isprintable() or c == "\n" else _spelled(c) for c in text))


def _spelled(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
