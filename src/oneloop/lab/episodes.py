"""Episodes in an environment as the page shows them: from the JSON of the column `turns`, old files' too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from math import isfinite
from typing import Any

Said = Mapping[str, Any]


def turns_of(column: str | None) -> list[Said] | None:
    """What was said behind the prompt; None where there is nothing, or it is damaged."""
    try:
        turns = json.loads(column or "null")
    except (ValueError, RecursionError):
        return None
    fine = isinstance(turns, list) and all(
        isinstance(turn, dict) and all(isinstance(turn.get(name), str) for name in ("role", "text")) for turn in turns
    )
    return turns if fine and turns else None


def policys(turns: Sequence[Said]) -> int:
    """Turns of the policy."""
    known = _known(turns)
    return sum(_chosen(turn, known=known) for turn in turns)


def episode(turns: Sequence[Said], short: int | None) -> list[dict[str, Any]]:
    """In turn what the policy said, and in one piece what its environment answered to it.

    `tokens`: those that the policy chose, or that it was made to read; None where the file does not say. `rest`:
    characters of a text, or of a call's texts together, that were cut off.
    """
    known = _known(turns)
    found: list[dict[str, Any]] = []
    for chosen, run in groupby(turns, lambda turn: _chosen(turn, known=known)):
        said = list(run)
        # each turn of the policy is its own, while messages of an environment are read together
        pieces = [[turn] for turn in said] if chosen else [said]
        found += [_piece(piece, chosen=chosen, known=known, short=short) for piece in pieces]
    return found


def _known(turns: Sequence[Said]) -> bool:
    """Whether the file says who chose what; older ones do not, and no more have ids."""
    return any("chosen" in turn for turn in turns)


def _chosen(turn: Said, *, known: bool) -> bool:
    return turn.get("chosen") is True if known else turn["role"] == "assistant"


def _piece(turns: Sequence[Said], *, chosen: bool, known: bool, short: int | None) -> dict[str, Any]:
    first = turns[0]
    ids = [turn["ids"] for turn in turns if isinstance(turn.get("ids"), list)]
    return {
        "chosen": chosen,
        "messages": [_message(turn, short) for turn in turns],
        "tokens": sum(map(len, ids)) if known else None,
        "reward": _number(first.get("reward")),
        "advantage": _number(first.get("advantage")),
        "terminated": first.get("terminated") is True,
        "truncated": first.get("truncated") is True,
        "calls": [_call(call, short) for call in _listed(first.get("calls")) if isinstance(call, dict)],
    }


def _message(turn: Said, short: int | None) -> dict[str, Any]:
    text = turn["text"]
    return {"role": turn["role"], "text": text[:short], "rest": len(text) - len(text[:short])}


def _call(call: Said, short: int | None) -> dict[str, Any]:
    whole = {name: str(call.get(name, "")) for name in ("name", "arguments", "answer")}
    cut = {name: text[:short] for name, text in whole.items()}
    return {**cut, "rest": sum(len(whole[name]) - len(text) for name, text in cut.items())}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e300 and isfinite(value) else None
