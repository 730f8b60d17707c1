"""Column layouts that other tools write, told apart by their columns, and how each becomes rows of one kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

from oneloop.data.code_rows import apps, human_eval, live_code_bench, mbpp
from oneloop.data.kinds import BadRow, Kind, Reading, Row, short
from oneloop.errors import DataError

Make = Callable[[Row], Row]


@dataclass(frozen=True)
class Layout:
    """Columns that mean something, for one kind of rows.

    Args:
        needs: the columns that tell it.
        rename: columns whose name here is another one than in the source, new: old.
        drop: columns that would be taken for something else.
        make: what is left to do with a row.
        fits: a look at one row, where names alone do not tell.
    """

    name: str
    kind: Kind
    needs: tuple[str, ...]
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    make: Make | None = None
    fits: Callable[[Row], bool] = lambda row: True

    def apply(self, row: Row) -> Row:
        """The normalised row; columns that are missing stay missing."""
        if self.rename or self.drop:
            taken = {new: row[old] for new, old in self.rename.items() if old in row}
            left = {*self.rename, *self.rename.values(), *self.drop}
            row = taken | {name: value for name, value in row.items() if name not in left}
        for name in _CONVERSATIONS:
            if isinstance(row.get(name), list):
                row = {**row, name: list(map(_without_nulls, row[name]))}
        if isinstance(row.get("tools"), str):
            row = {**row, "tools": _parsed("tools", row["tools"])}
        return self.make(row) if self.make is not None else row


_CONVERSATIONS = ("prompt", "messages", "completion", "chosen", "rejected")


def _without_nulls(message: Any) -> Any:
    """Columns give every message the keys of all others, with nulls: a template would take them for values."""
    if type(message) is not dict or not _NESTED.intersection(map(type, message.values())):
        return message
    kept = {name: _pruned(value) for name, value in message.items() if value is not None or name == "content"}
    if kept.get("tool_calls") and kept.get("content") is None:
        kept["content"] = ""  # a call of a tool without words
    return kept


_NESTED = frozenset({list, dict, type(None)})


def _pruned(value: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    if isinstance(value, dict):
        return {name: _pruned(item) for name, item in value.items() if item is not None}
    return value


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise BadRow(f"{name} is {short(text)}; wanted a list, or one written as JSON") from None


def _verl(row: Row) -> Row:
    model = row.get("reward_model")
    if not isinstance(model, dict) or "ground_truth" not in model:
        raise BadRow(f"reward_model is {short(model)}; wanted an object with ground_truth, as verl writes it")
    return {**row, "ground_truth": model["ground_truth"]}


def _info(row: Row) -> Row:
    """verifiers' `info` may be an object written as JSON."""
    info = row.get("info")
    if isinstance(info, str) and info.lstrip().startswith("{"):
        return {**row, "info": _parsed("info", info)}
    return row


def _label(row: Row) -> Row:
    """CSV has no types, and some tools write 1 and 0."""
    label = row.get("label")
    value = {"true": True, "1": True, "false": False, "0": False}.get(str(label).strip().lower(), label)
    return row if value is label or "label" not in row else {**row, "label": value}


def _explicit(row: Row) -> Row:
    """A prompt beside answers that are whole conversations, as in ultrafeedback_binarized."""
    chosen, prompt = row.get("chosen"), row.get("prompt")
    if not isinstance(chosen, list) or not chosen or not isinstance(chosen[0], dict):
        return row
    whole = chosen[0].get("role") in ("user", "system")
    return _implicit(row) if whole and (isinstance(prompt, str) or chosen[: len(prompt or ())] == prompt) else row


def _implicit(row: Row) -> Row:
    """What both answers begin with is the prompt."""
    if "chosen" not in row or "rejected" not in row:
        return row
    chosen, rejected = row["chosen"], row["rejected"]
    if type(chosen) is not type(rejected) or not isinstance(chosen, (str, list)):
        raise BadRow(
            f"chosen is {short(chosen)} and rejected {short(rejected)}; wanted two texts, or two lists of messages"
        )
    if chosen == rejected:
        raise BadRow(f"chosen and rejected are the same ({short(chosen)}); no preference in it")
    start = _common_text(chosen, rejected) if isinstance(chosen, str) else _common_messages(chosen, rejected)
    if not start:
        unit = "whole word" if isinstance(chosen, str) else "message"
        raise BadRow(
            f"there is no prompt, and chosen ({short(chosen)}) and rejected ({short(rejected)}) begin with no {unit} "
            "in common that could be one. Fix: a column prompt"
        )
    return {**row, "prompt": chosen[:start], "chosen": chosen[start:], "rejected": rejected[start:]}


_TURN = "\n\nAssistant:"
"""Where an answer begins in the layout of hh-rlhf."""


def _common_text(chosen: str, rejected: str) -> int:
    """Characters of the prompt: up to the last turn of the assistant, else whole words that both begin with."""
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    turn = chosen.rfind(_TURN, 0, start)
    if turn >= 0:
        return turn + len(_TURN)
    # a word that both begin with belongs to the answers, and so does the white space before it
    while start and not chosen[start - 1].isspace():
        start -= 1
    return len(chosen[:start].rstrip())


def _common_messages(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """Messages of the prompt: all that both begin with, up to the assistant's last turn in common."""
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    longest = min(start, len(chosen) - 1, len(rejected) - 1)
    while longest and isinstance(chosen[longest - 1], dict) and chosen[longest - 1].get("role") == "assistant":
        longest -= 1
    return max(longest, 0)


def _is_verl(row: Row) -> bool:
    return isinstance(row.get("reward_model"), dict)


_DEMONSTRATIONS = ("messages", "prompt", "completion", "text")


def _demonstration(name: str, needs: tuple[str, ...], rename: Mapping[str, str] | None = None) -> Layout:
    own = {*(rename or {}), *needs}
    drop = tuple(column for column in _DEMONSTRATIONS if column not in own)
    return Layout(name, "demonstrations", needs, rename or {}, drop)


_UNIT_TESTS: tuple[tuple[str, str, tuple[str, ...], str, Make], ...] = (
    ("HumanEval", "prompt", ("test", "entry_point"), "canonical_solution", human_eval),
    ("MBPP", "prompt", ("test_list",), "code", mbpp),
    ("MBPP", "text", ("test_list",), "code", mbpp),
    ("APPS", "question", ("input_output",), "solutions", apps),
    ("LiveCodeBench", "question_content", ("public_test_cases",), "", live_code_bench),
)
"""Name, the column of the prompt, those of the tests, and of a solution."""


def _with_tests(kind: Kind, name: str, prompt: str, tests: tuple[str, ...], solution: str, make: Make) -> Layout:
    needs = (prompt, *tests) if kind == "prompts" else (prompt, solution, *tests)
    rename = {} if prompt == "prompt" else {"prompt": prompt}
    drop = tuple(column for column in ("messages", "text") if column != prompt)
    return Layout(name, kind, needs, rename, drop, make, fits=_has_no_tests)


def _has_no_tests(row: Row) -> bool:
    return "tests" not in row


LAYOUTS: tuple[Layout, ...] = (
    *(_with_tests("prompts", *columns) for columns in _UNIT_TESTS),
    *(_with_tests("demonstrations", *columns) for columns in _UNIT_TESTS if columns[3]),
    Layout("verl", "prompts", ("prompt", "reward_model"), make=_verl, fits=_is_verl),
    Layout("prompts", "prompts", ("prompt",), make=_info),
    Layout("conversations that end with a question", "prompts", ("messages",), {"prompt": "messages"}),
    Layout("verifiers and reasoning-gym", "prompts", ("question",), {"prompt": "question"}, make=_info),
    Layout("OpenRLHF", "prompts", ("input",), {"prompt": "input"}),
    Layout("queries", "prompts", ("query",), {"prompt": "query"}),
    _demonstration("conversations", ("messages",)),
    _demonstration("prompt and completion", ("prompt", "completion")),
    _demonstration("text", ("text",)),
    _demonstration("prompt and response", ("prompt", "response"), {"completion": "response"}),
    _demonstration("OpenRLHF", ("input", "output"), {"prompt": "input", "completion": "output"}),
    _demonstration("query and response", ("query", "response"), {"prompt": "query", "completion": "response"}),
    _demonstration("question and answer", ("question", "answer"), {"prompt": "question", "completion": "answer"}),
    Layout("preferences", "preferences", ("prompt", "chosen", "rejected"), make=_explicit),
    Layout(
        "preferences", "preferences", ("question", "chosen", "rejected"), {"prompt": "question"}, make=_explicit
    ),
    Layout("OpenRLHF", "preferences", ("input", "chosen", "rejected"), {"prompt": "input"}, make=_explicit),
    Layout("preferences with the prompt inside", "preferences", ("chosen", "rejected"), make=_implicit),
    Layout("unpaired", "unpaired", ("prompt", "completion", "label"), make=_label),
    Layout(
        "prompt, response and label", "unpaired", ("prompt", "response", "label"), {"completion": "response"},
        make=_label,
    ),
)  # fmt: skip
"""Of those that fit, the first is taken."""


def plain_layout(kind: Kind) -> Layout:
    """The layout whose columns are already those of a kind."""
    needs = {
        "prompts": ("prompt",),
        "demonstrations": ("prompt", "completion"),
        "preferences": ("prompt", "chosen", "rejected"),
        "unpaired": ("prompt", "completion", "label"),
    }[kind]
    return next(layout for layout in LAYOUTS if layout.kind == kind and layout.needs == needs)


def fitting_layouts(names: Collection[str], row: Row) -> list[Layout]:
    return [layout for layout in LAYOUTS if set(layout.needs) <= set(names) and layout.fits(row)]


def detect(source: str, names: Collection[str], row: Row, kind: Kind, reading: Reading) -> tuple[Layout, str]:
    """The layout of columns, and the reason in words.

    Args:
        names: the columns that most rows have.
        row: one of those rows.

    Raises: DataError with what there is, what is wanted, and a flag or a method that fits.
    """
    fitting = fitting_layouts(names, row)
    chosen = next((layout for layout in fitting if layout.kind == kind), None)
    if chosen is None:
        raise DataError(_mismatch(source, names, fitting, kind, reading))
    return chosen, _reason(source, chosen, [layout for layout in fitting if layout.kind == kind], row)


def _reason(source: str, chosen: Layout, fitting: Sequence[Layout], row: Row) -> str:
    form = "messages" if any(isinstance(row.get(name), list) for name in set(chosen.needs) - _FOREIGN) else "text"
    said = f"{source}: {chosen.kind} in the layout {chosen.name!r} ({form}), because of {_columns(chosen.needs)}"
    said += "".join(f"; {old} is read as {new}" for new, old in chosen.rename.items())
    if chosen.make is _implicit:
        said += "; the prompt is what both answers begin with"
    others = [other for other in fitting[1:] if not set(other.needs) <= set(chosen.needs)]
    if others:
        said += f"; {_columns(others[0].needs)} would fit too"
    return said


_FOREIGN = frozenset({"reward_model", "test", "test_list", "input_output", "public_test_cases"})
"""Columns that only other tools write; none of them holds text or messages to learn from."""


def _mismatch(source: str, names: Collection[str], fitting: Sequence[Layout], kind: Kind, reading: Reading) -> str:
    wanted = [layout.needs for layout in LAYOUTS if layout.kind == kind and not layout.rename]
    options = " or ".join(dict.fromkeys(" + ".join(needs) for needs in wanted if _FOREIGN.isdisjoint(needs)))
    who = reading.method or f"learning from {kind}"
    has = f"has the columns {_columns(names)}" if names else "has no columns"
    said = f"{source} {has}; {who} needs {options}."
    fixes = [f"--columns {pairs}"] if (pairs := _renaming(names, kind)) else []
    fixes += [reading.instead[layout.kind] for layout in fitting if layout.kind in reading.instead][:1]
    return f"{said} Fix: {', or '.join(fixes) or '--columns OLD=NEW, or another file'}"


_LIKE: Mapping[str, tuple[str, ...]] = {
    "prompt": ("question", "query", "input", "instruction", "problem", "prompts", "user", "context", "source"),
    "completion": ("response", "output", "answer", "solution", "target", "chosen", "completions", "text"),
    "chosen": ("preferred", "better", "accepted", "winner", "response_chosen", "positive"),
    "rejected": ("dispreferred", "worse", "loser", "response_rejected", "negative"),
    "label": ("labels", "score", "is_good", "thumbs"),
}


def _renaming(names: Collection[str], kind: Kind) -> str:
    """`old=new` for every column that is missing, where there is a likely one for each."""
    pairs: list[str] = []
    for wanted in plain_layout(kind).needs:
        if wanted in names:
            continue
        near = [name for name in _LIKE[wanted] if name in names] or get_close_matches(wanted, names, 1, 0.6)
        if not near:
            return ""
        pairs.append(f"{near[0]}={wanted}")
    return " ".join(pairs)


def _columns(names: Collection[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "")
