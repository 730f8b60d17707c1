"""What rows can be: the interface between those who read data and those who learn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from oneloop.errors import DataError

Row = dict[str, Any]
Kind = Literal["prompts", "demonstrations", "preferences", "unpaired"]
"""What a method learns from. Normalised rows are, beside any other columns:

prompts          prompt (text or messages), tools?
demonstrations   text | messages, tools? | prompt, completion (each text or messages)
preferences      prompt, chosen, rejected: the prompt always stands for itself
unpaired         prompt, completion, label (bool)
"""
EXAMPLES: dict[Kind, str] = {
    "prompts": '{"prompt": "2+3=", "answer": "5"}',
    "demonstrations": '{"prompt": "2+3=", "completion": "5"}',
    "preferences": '{"prompt": "2+3=", "chosen": "5", "rejected": "6"}',
    "unpaired": '{"prompt": "2+3=", "completion": "5", "label": true}',
}
METHODS: dict[Kind, str] = {
    "prompts": "grpo, ppo",
    "demonstrations": "sft",
    "preferences": "dpo, reward_model",
    "unpaired": "kto",
}
"""Methods that learn from each kind, the usual ones first."""
OTHER_METHODS: dict[Kind, str] = {kind: f"a method that learns from {kind}: {METHODS[kind]}" for kind in METHODS}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source is read.

    Args:
        columns: renamings `old=new`, done before anything else.
        split: the part of a source that has several; "" takes `train`, or the only one.
        on_bad_row: whether an unusable row ends the run or is left out, counted and named.
        method: who wants the rows, for messages.
        instead: what to do with rows of another kind than is wanted, for messages.
    """

    columns: tuple[str, ...] = ()
    split: str = ""
    on_bad_row: Literal["error", "skip"] = "error"
    method: str = ""
    instead: Mapping[Kind, str] = field(default_factory=lambda: OTHER_METHODS)


class BadRow(DataError):
    """Why one row cannot be used, without its place: whoever knows the place adds it."""


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
