"""Results of the studies, as the package carries them: what `make study-pages` wrote from docs/studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oneloop.lab.answers import Refusal

FOLDER = Path(__file__).parent / "studies"
LIST = "list.json"


def studies() -> Any:
    """Every study with its claims and verdicts, in the order of the overview."""
    return _read(LIST)


def study(name: str) -> Any:
    """Claims, numbers and how they were made. Raises: Refusal where there is no study of that name."""
    names = [one["name"] for one in studies()["studies"]]
    if name not in names:
        raise Refusal(404, "there is no study of that name", "oneloop study")
    return _read(f"{name}.json")


def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))
