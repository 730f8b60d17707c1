"""Whether a normalised row can be used for what it is wanted: columns, text, messages, pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oneloop.data.kinds import EXAMPLES, BadRow, Kind, Row, short

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
_SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen_rating", "rejected_rating"))
Names = Mapping[str, str]
"""From the name of a column here to its name in the file, where that is another."""


def check_row(row: Row, kind: Kind, names: Names) -> None:
    """Raises: BadRow naming the column and the reason."""
    _CHECKS[kind](row, names)


def _check_prompts(row: Row, names: Names) -> None:
    _check_prompt(row, names, "prompts")
    prompt = row["prompt"]
    if isinstance(prompt, list) and prompt[-1]["role"] == "assistant":
        raise BadRow(
            f"{names.get('prompt', 'prompt')} ends with the assistant's turn, so nothing is asked: "
            f"{short(prompt[-1])}. Fix: leave that turn out, or sft, which learns from it"
        )


def _check_demonstrations(row: Row, names: Names) -> None:
    if "messages" in row:
        name = names.get("messages", "messages")
        check_messages(name, row["messages"])
        if not any(message["role"] == "assistant" for message in row["messages"]):
            raise BadRow(f"{name} has no turn of the assistant, so there is nothing to learn")
    elif "text" in row:
        _check_text(names.get("text", "text"), row["text"], "text")
    else:
        _check_prompt(row, names, "demonstrations")
        _check_answer(row, "completion", names, "demonstrations")


def _check_preferences(row: Row, names: Names) -> None:
    _check_prompt(row, names, "preferences")
    for column in ("chosen", "rejected"):
        _check_answer(row, column, names, "preferences")
    if row["chosen"] == row["rejected"]:
        raise BadRow(f"chosen and rejected are the same ({short(row['chosen'])}); no preference in it")
    for better, worse in _SCORES:
        scores = row.get(better), row.get(worse)
        if all(isinstance(score, (int, float)) for score in scores) and scores[0] < scores[1]:  # pyright: ignore[reportOptionalOperand]
            raise BadRow(
                f"{better} is {scores[0]} and {worse} is {scores[1]}: the rejected answer has the better score. "
                "Fix: --columns chosen=rejected rejected=chosen where all rows are so"
            )


def _check_unpaired(row: Row, names: Names) -> None:
    _check_prompt(row, names, "unpaired")
    _check_answer(row, "completion", names, "unpaired")
    name = names.get("label", "label")
    if "label" not in row:
        raise _missing(row, "label", names, "unpaired")
    if not isinstance(row["label"], bool):
        raise BadRow(
            f"{name} is {short(row['label'])} of type {type(row['label']).__name__}; wanted true for a good answer, "
            "false for a bad one"
        )


def _check_prompt(row: Row, names: Names, kind: Kind) -> None:
    if "prompt" not in row:
        raise _missing(row, "prompt", names, kind)
    prompt, name = row["prompt"], names.get("prompt", "prompt")
    if isinstance(prompt, list):
        check_messages(name, prompt)
    else:
        _check_text(name, prompt, "text, or a list of messages with role and content")


def _check_answer(row: Row, column: str, names: Names, kind: Kind) -> None:
    if column not in row:
        raise _missing(row, column, names, kind)
    answer, name = row[column], names.get(column, column)
    if not isinstance(answer, list):
        _check_text(name, answer, "text, or messages as the prompt is")
        return
    if isinstance(row["prompt"], str):
        raise BadRow(f"prompt is text and {name} a list of messages; wanted both as text or both as messages")
    check_messages(name, answer, begins=False)
    if answer[0]["role"] != "assistant":
        raise BadRow(f"{name}[0] is {short(answer[0])}; wanted the assistant's turn, which answers the prompt")


def _missing(row: Row, column: str, names: Names, kind: Kind) -> BadRow:
    name = names.get(column, column)
    return BadRow(f"columns {sorted(row)}, but no {name!r}. Wanted a row such as {EXAMPLES[kind]}")


def _check_text(name: str, value: Any, wanted: str) -> None:
    if not isinstance(value, str):
        raise BadRow(f"{name} is {short(value)} of type {type(value).__name__}; wanted {wanted}")
    if not value or value.isspace():
        raise BadRow(f"{name} is empty ({short(value)})")


def check_messages(name: str, messages: Any, *, begins: bool = True) -> None:
    """`begins`: whether the list is the beginning of a conversation."""
    if not isinstance(messages, list):
        raise BadRow(f"{name} is {short(messages)} of type {type(messages).__name__}; wanted a list of messages")
    if not messages:
        raise BadRow(f"{name} is an empty list of messages")
    said = False
    for place, message in enumerate(messages):
        if type(message) is not dict or type(message.get("role")) is not str:
            raise BadRow(f'{name}[{place}] is {short(message)}; wanted {{"role": "user", "content": "..."}}')
        if type(message.get("content")) is not str or message["role"] not in ROLES:
            raise _unreadable(f"{name}[{place}]", message)
        if message["role"] == "system" and (place or not begins):
            raise BadRow(
                f"{name}[{place}] is a system message; wanted one at most, at the start: templates refuse or drop "
                "others"
            )
        said = said or not (message["content"].isspace() or message["content"] == "") or bool(message.get("tool_calls"))
    # an empty system message is common; messages without a word among them ask nothing
    if not said:
        raise BadRow(f"{name} is empty: no message has content")


def _unreadable(what: str, message: Row) -> BadRow:
    """Why a message cannot be read."""
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        hint = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}.get(role)
        fix = f". Fix: write {hint!r} for {role!r}" if hint else ""
        return BadRow(f"{what} has the unknown role {role!r}; wanted one of {', '.join(sorted(ROLES))}{fix}")
    reason = " (a list of parts: only text is read)" if isinstance(content, list) else ""
    return BadRow(f'{what}: content is {short(content)}{reason}; wanted {{"role": "{role}", "content": "..."}}')


_CHECKS: Mapping[Kind, Callable[[Row, Names], None]] = {
    "prompts": _check_prompts,
    "demonstrations": _check_demonstrations,
    "preferences": _check_preferences,
    "unpaired": _check_unpaired,
}
