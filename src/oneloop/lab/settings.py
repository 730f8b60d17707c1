"""What a run was asked to do, on its page: the objective in words, and every setting."""

from __future__ import annotations

from typing import Any

from oneloop.lab.page import Table, block, shown, table
from oneloop.record.reader import RunRecord


def settings(name: str, record: RunRecord) -> str:
    """Folded: the objective as `oneloop explain` prints it, the settings that are not the default first."""
    objective = record.path / "objective.txt"
    text = block(objective.read_text(encoding="utf-8", errors="replace")) if objective.is_file() else ""
    own = record.info.get("changed", {})
    rows = [(key, _words(value), _words(own[key]) if key in own else "") for key, value in record.config.items()]
    rows.sort(key=lambda row: row[0] not in own)
    if not rows and not text:
        return ""
    caption = f"{len(own)} of {len(rows)} settings differ from the default; they stand first"
    what = table(Table(("setting", "value", "default"), rows, caption)) if rows else ""
    return f"<details><summary>Objective and settings of {shown(name)}</summary>{text}{what}</details>\n"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
