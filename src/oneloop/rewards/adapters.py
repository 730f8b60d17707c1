"""Which form a reward function has: the native one, or another library's, told by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LABELS = ("label", "labels")
"""Columns that OpenRLHF's `labels` is read from, the first that is there."""
HOLD_THE_ANSWER = (
    "ground_truth", "answer", "solution", "label", "labels", "target", "reference", "reference_answer", "final_answer",
)  # fmt: skip
"""Columns in which data sets keep the right answer."""
_ELSEWHERE = {
    "trace": "a method of a verifiers v1 task, which takes a trace. Fix: def f(completion, answer): ...",
    "parser": "verifiers' form with a parser of its own. Fix: def f(completion, answer): ... and parse in it",
    "sample": "slime's form. Fix: def f(completion, label): ...",
    "reward_input": "EasyR1's form. Fix: def f(completions, answer, **columns): ...",
    "reward_inputs": "EasyR1's form. Fix: def f(completions, answer, **columns): ...",
}
"""Parameters of forms that are known and not taken."""


@dataclass(frozen=True)
class Form:
    """A way to call a reward function."""

    name: str
    call: str
    """Its parameters, as its own library writes them."""
    each: bool = False
    """Called for every completion by itself."""
    given: frozenset[str] = frozenset()
    """Parameters that are filled without a column of the data."""


NATIVE = Form(
    "native",
    "reward(completions, **columns)",
    given=frozenset((
        "completions", "prompts", "completion_ids", "episode_ids", "prompt_ids", "trainer_state", "log_metric",
        "log_extra",
    )),
)  # fmt: skip
VERL = Form(
    "verl",
    "compute_score(data_source, solution_str, ground_truth, extra_info=None)",
    each=True,
    given=frozenset(("solution_str", "data_source", "extra_info")),
)
OPENRLHF = Form("OpenRLHF", "reward_func(queries, prompts, labels)", given=frozenset(("queries", "prompts")))
VERIFIERS = Form(
    "verifiers",
    "f(completion, answer, info, prompt, state)",
    each=True,
    given=frozenset(("completion", "prompt", "state", "info", "task")),
)
REASONING_GYM = Form("reasoning-gym", "score_answer(answer, entry)", each=True, given=frozenset(("entry",)))


@dataclass(frozen=True)
class Signature:
    """What decides how a function is called; plain values, so that a worker process can tell them."""

    names: tuple[str, ...] = ()
    """Parameters that can be given by name."""
    required: tuple[str, ...] = ()
    """Those of them without a default."""
    takes_any: bool = False
    """Has **columns, or does not tell its parameters."""
    asynchronous: bool = False
    scores_answers: bool = False
    """An object with a method score_answer."""
    ours: bool = False
    """A grader of this package: it reads the text of answers in a chat too."""

    @property
    def form(self) -> Form:
        names = set(self.names)
        if self.scores_answers:
            return REASONING_GYM
        if "solution_str" in names:
            return VERL
        if "queries" in names:
            return OPENRLHF
        # a native function may have a column called info or state; a function without any of the lists is no such one
        lists = {"completions", "prompts", "completion_ids", "episode_ids", "prompt_ids"}
        if not names & lists and names & {"completion", "state"}:
            return VERIFIERS
        return NATIVE

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that it cannot do without."""
        if self.scores_answers:
            return ("answer",)
        wanted = [name for name in self.required if name not in self.form.given]
        return tuple("label" if self.form is OPENRLHF and name == "labels" else name for name in wanted)

    def takes(self, name: str) -> bool:
        return self.takes_any or name in self.names

    def lacks(self, columns: Collection[str]) -> str | None:
        """The first column that it needs and that is in none of `columns`."""
        return next((name for name in self.columns if not (set(alternatives(name, self.form)) & set(columns))), None)


def alternatives(column: str, form: Form) -> tuple[str, ...]:
    """Names that a column may have."""
    return LABELS if form is OPENRLHF and column == "label" else (column,)


def signature_of(function: Callable[..., Any] | object) -> Signature:
    """What the function takes; some compiled ones do not tell."""
    if callable(getattr(function, "score_answer", None)):
        return Signature(scores_answers=True)
    ours = (getattr(function, "__module__", None) or "").split(".")[0] == "oneloop"
    asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004
    )
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return Signature(takes_any=True, asynchronous=asynchronous, ours=ours)
    by_name = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }
    return Signature(
        names=tuple(by_name),
        required=tuple(name for name, parameter in by_name.items() if parameter.default is parameter.empty),
        takes_any=any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()),
        asynchronous=asynchronous,
        ours=ours,
    )


def missing(name: str, column: str, signature: Signature, columns: Sequence[str]) -> str:
    """What to say of a reward that wants a column which the data has not, with a fix that can be pasted."""
    form = signature.form
    style = "" if form is NATIVE else f" (by its parameters in {form.name}'s form, {form.call})"
    if form is NATIVE and column in _ELSEWHERE:
        return f"reward {name} wants {column!r}: it looks like {_ELSEWHERE[column]}"
    has = f"the data has the columns {list(columns)}" if columns else "the data has no columns beside the prompt"
    likely = [have for have in HOLD_THE_ANSWER if have in columns]
    if likely and column in HOLD_THE_ANSWER:
        fix = f"--columns {likely[0]}={column}"
    else:
        fix = f"--columns OLD={column}, with the column OLD that holds it"
        fix += "" if signature.scores_answers else ", or give the parameter a default"
    return f"reward {name}{style} wants {column!r}, but {has}. Fix: {fix}"
