"""Which method rows are for, where nobody says: the usual one of the kind that their columns have."""

from __future__ import annotations

from oneloop.config import Run
from oneloop.data import Kind, kinds_of
from oneloop.errors import OneloopError
from oneloop.recipes.rows import reading_of
from oneloop.tasks.named import is_task

USUAL: dict[Kind, str] = {"prompts": "grpo", "demonstrations": "sft", "preferences": "dpo", "unpaired": "kto"}


def inferred(run: Run) -> tuple[str, str]:
    """The name of a method, and why it is that one."""
    if run.reward or run.reward_model:
        return USUAL["prompts"], "a reward is there, and grpo calls it"
    if is_task(run.data):
        return USUAL["prompts"], f"{run.data} asks and grades"
    try:
        kinds = kinds_of(run.data, reading_of(run))
    except OneloopError:
        kinds = {}
    if not kinds:
        return USUAL["prompts"], "the columns do not tell another one"
    kind, *others = kinds
    fit = f"{USUAL[kind]} learns from {kind}, which {run.data} has because of {', '.join(kinds[kind])}"
    return USUAL[kind], fit + "".join(f"; oneloop check {USUAL[other]} looks at its {other}" for other in others)
