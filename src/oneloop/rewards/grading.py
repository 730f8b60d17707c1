"""One call of a reward function in whatever form it has; the same code in this process and in a worker."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from oneloop.rewards.adapters import LABELS, OPENRLHF, REASONING_GYM, VERL, Signature, signature_of
from oneloop.rewards.blame import described
from oneloop.rewards.values import length, real, short

AT_ONCE = 64
"""Calls of an async function for single completions that wait at the same time."""
_LIST = "wanted list[float | None], one per completion"
_VALUE = "wanted a finite number, or None where the sample cannot be scored"


class Grade(NamedTuple):
    """What a reward function said of one completion."""

    value: float | None
    failure: str | None = None
    """Why there is no value, as in "reward NAME {failure}"; None where the function itself gave None."""
    measures: Mapping[str, float] = {}
    """Numbers to log as means."""
    extras: Mapping[str, str | None] = {}
    """Columns for the table of completions."""
    cause: BaseException | None = None
    """What was raised, where it was raised in this process."""


Tell = Callable[[Mapping[int, Grade]], None]
"""Told the grades of some places, as soon as they are known."""


@dataclass(frozen=True)
class Asked:
    """Completions to be graded, as plain values."""

    texts: Sequence[str]
    prompts: Sequence[str]
    messages: Sequence[Sequence[Mapping[str, Any]] | None]
    """The prompt as messages, where it is a conversation."""
    completion_ids: Sequence[Sequence[int]]
    """Those that the policy chose."""
    prompt_ids: Sequence[Sequence[int]]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    episode_ids: Sequence[Sequence[int]] | None = None
    """All that stand behind the prompt, those of an environment too; None: the policy chose all."""

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, places: Sequence[int]) -> Asked:
        def picked(values: Sequence[Any]) -> list[Any]:
            return [values[place] for place in places]

        return replace(
            self,
            texts=picked(self.texts),
            prompts=picked(self.prompts),
            messages=picked(self.messages),
            completion_ids=picked(self.completion_ids),
            prompt_ids=picked(self.prompt_ids),
            episode_ids=None if self.episode_ids is None else picked(self.episode_ids),
            columns={name: picked(values) for name, values in self.columns.items()},
        )

    def read_by(self, signature: Signature) -> Asked:
        """Without what the function does not take: less to send to a worker."""
        nothing: list[Sequence[int]] = [()] * len(self)
        everything = signature.takes_any or signature.scores_answers
        named = {*signature.names, *LABELS}
        return replace(
            self,
            completion_ids=self.completion_ids if signature.takes("completion_ids") else nothing,
            episode_ids=(self.episode_ids or self.completion_ids) if signature.takes("episode_ids") else nothing,
            prompt_ids=self.prompt_ids if signature.takes("prompt_ids") else nothing,
            columns={name: values for name, values in self.columns.items() if everything or name in named},
        )

    def prompt(self, place: int) -> Any:
        """As the data has it: text, or messages."""
        messages = self.messages[place]
        return self.prompts[place] if messages is None else [dict(message) for message in messages]

    def completion(self, place: int) -> Any:
        """As TRL and verifiers have it: text after text, a message of the assistant after messages."""
        text = self.texts[place]
        return text if self.messages[place] is None else [{"role": "assistant", "content": text}]

    def row(self, place: int) -> dict[str, Any]:
        return {name: values[place] for name, values in self.columns.items()}


class Grader(ABC):
    """A reward function, wherever it runs."""

    signature: Signature
    lenient: bool = False
    """A failure is one answer's, whoever wrote it: it leaves that sample unscored, and a run that stops at failures
    goes on."""

    @abstractmethod
    def grade(self, asked: Asked, tell: Tell) -> None:
        """Tell one grade for every place, each once.

        Raises: nothing that the function raised, but KeyboardInterrupt.
        """

    def close(self) -> None:  # noqa: B027  # what runs in this process has no end
        """End what runs for it."""


class InProcess(Grader):
    """In the trainer's own process: nothing bounds its time, and what it breaks is broken for the run."""

    def __init__(self, function: Any) -> None:
        self._function, self.signature = function, signature_of(function)

    def grade(self, asked: Asked, tell: Tell) -> None:
        grade(self._function, self.signature, asked, tell)


def grade(function: Any, signature: Signature, asked: Asked, tell: Tell, *, apart: bool = False) -> None:
    """Call the function, and tell what it said.

    Args:
        apart: in a process of its own, where KeyboardInterrupt is the function's and not the user's.
    """
    if not signature.form.each:
        tell(dict(enumerate(_batch(function, signature, asked, apart))))
    elif signature.asynchronous:
        finished(_concurrently(function, signature, asked, tell, apart))
    else:
        for place in range(len(asked)):
            tell({place: _single(function, signature, asked, place, apart)})


# all completions in one call


def _batch(function: Any, signature: Signature, asked: Asked, apart: bool) -> list[Grade]:
    logged = _Logged(len(asked))
    try:
        returned = function(**_arguments(signature, asked, logged))
        if inspect.isawaitable(returned):
            returned = finished(_awaited(returned))
        if signature.form is OPENRLHF and isinstance(returned, Mapping):
            returned = _openrlhf(returned, logged)
    except BaseException as error:  # SystemExit and a cancelled task too: only the user stops a run
        return [_raised(error, apart)] * len(asked)
    count = length(returned)
    if count is None:
        return [Grade(None, f"returned {short(returned)} of type {type(returned).__name__}; {_LIST}")] * len(asked)
    if count != len(asked):
        failure = (
            f"returned {count} values for {len(asked)} completions; "
            "wanted one per completion, None where a sample cannot be scored"
        )
        return [Grade(None, failure)] * len(asked)
    try:
        values = list(returned)
    except BaseException as error:
        return [_raised(error, apart)] * len(asked)
    return [
        _valued(place, value)._replace(measures=logged.measures[place], extras=logged.extras[place])
        for place, value in enumerate(values)
    ]


def _arguments(signature: Signature, asked: Asked, logged: _Logged) -> dict[str, Any]:
    """Lists of its own for each call; data columns first, so that none can shadow a completion."""
    every = range(len(asked))
    everything: dict[str, Any] = {name: list(values) for name, values in asked.columns.items()}
    if signature.form is OPENRLHF:
        everything["labels"] = everything.get(next((name for name in LABELS if name in everything), ""))
        everything["prompts"] = list(asked.prompts)
        everything["queries"] = [prompt + text for prompt, text in zip(asked.prompts, asked.texts, strict=True)]
    else:
        everything |= {
            "completions": list(asked.texts) if signature.ours else [asked.completion(place) for place in every],
            "prompts": list(asked.prompts) if signature.ours else [asked.prompt(place) for place in every],
            "completion_ids": [list(ids) for ids in asked.completion_ids],
            "episode_ids": [list(ids) for ids in asked.episode_ids or asked.completion_ids],
            "prompt_ids": [list(ids) for ids in asked.prompt_ids],
            "trainer_state": SimpleNamespace(global_step=asked.step, max_steps=asked.steps),
            "log_metric": logged.metric,
            "log_extra": logged.extra,
        }
    return everything if signature.takes_any else {k: v for k, v in everything.items() if k in signature.names}


class _Logged:
    """What a function logs beside its values; belongs to the completions of its call."""

    def __init__(self, count: int) -> None:
        self.measures: list[dict[str, float]] = [{} for _ in range(count)]
        self.extras: list[dict[str, str | None]] = [{} for _ in range(count)]

    def metric(self, name: str, value: Any) -> None:
        number = real(value)
        if number is None:
            raise ValueError(f"log_metric({name!r}, {short(value)}): wanted a finite number")
        for measures in self.measures:
            measures[str(name)] = number

    def extra(self, column: str, values: Any) -> None:
        count = length(values)
        if count != len(self.extras):
            raise ValueError(f"log_extra({column!r}, ...) got {count} values for {len(self.extras)} completions")
        for extras, value in zip(self.extras, values, strict=True):
            extras[str(column)] = None if value is None else str(value)


def _openrlhf(returned: Mapping[str, Any], logged: _Logged) -> Any:
    """The values of OpenRLHF's dict; its scores and extra_logs are logged."""
    if "rewards" not in returned:
        return returned
    scores = {"scores": returned["scores"]} if returned.get("scores") is not None else {}
    for name, values in {**scores, **(returned.get("extra_logs") or {})}.items():
        count = length(values)
        if count is None:
            logged.metric(name, values)
            continue
        if count != len(logged.measures):
            raise ValueError(f"extra_logs[{name!r}] has {count} values for {len(logged.measures)} completions")
        for measures, value in zip(logged.measures, values, strict=True):
            if (number := real(value)) is not None:
                measures[str(name)] = number
    return returned["rewards"]


# one completion a call


def _single(function: Any, signature: Signature, asked: Asked, place: int, apart: bool) -> Grade:
    try:
        returned = _call(function, signature, asked, place)
        if inspect.isawaitable(returned):
            returned = finished(_awaited(returned))
    except BaseException as error:
        return _raised(error, apart)
    return _returned(place, returned)


async def _concurrently(function: Any, signature: Signature, asked: Asked, tell: Tell, apart: bool) -> None:
    import asyncio  # noqa: PLC0415  # a third of a worker's start

    free = asyncio.Semaphore(AT_ONCE)

    async def one(place: int) -> None:
        async with free:
            try:
                grade = _returned(place, await _call(function, signature, asked, place))
            except BaseException as error:
                if not apart and isinstance(error, asyncio.CancelledError) and asyncio.current_task().cancelling():  # pyright: ignore[reportOptionalMemberAccess]
                    raise  # by Ctrl-C, not by the function
                grade = _raised(error, apart)
            tell({place: grade})

    await asyncio.gather(*(one(place) for place in range(len(asked))))


def _call(function: Any, signature: Signature, asked: Asked, place: int) -> Any:
    row = asked.row(place)
    if signature.form is REASONING_GYM:
        return function.score_answer(asked.texts[place], {"question": asked.prompts[place], **row})
    if signature.form is VERL:
        values = {"data_source": "", "extra_info": None, **row, "solution_str": asked.texts[place]}
        if "extra_info" not in row and "extra_info" not in signature.required:
            del values["extra_info"]
    else:
        values = {"task": "default", **row, "info": _info(row.get("info"))}
        values |= {"completion": asked.completion(place), "prompt": asked.prompt(place)}
        values["state"] = dict(values)
    return function(**(values if signature.takes_any else {k: v for k, v in values.items() if k in signature.names}))


def _info(value: Any) -> Any:
    """verifiers keeps it as a dict or as its JSON."""
    if value is None:
        return {}
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _returned(place: int, returned: Any) -> Grade:
    """A number, or verl's dict with the number under "score"."""
    if not isinstance(returned, Mapping) or "score" not in returned:
        return _valued(place, returned)
    others = {str(name): value for name, value in returned.items() if name != "score"}
    numbers = {name: number for name, value in others.items() if (number := real(value)) is not None}
    texts = {name: None if value is None else str(value) for name, value in others.items() if name not in numbers}
    return _valued(place, returned["score"])._replace(measures=numbers, extras=texts)


# both


def _valued(place: int, value: Any) -> Grade:
    if value is None:
        return Grade(None)
    number = real(value)
    if number is None:
        return Grade(None, f"returned {short(value)} of type {type(value).__name__} at index {place}; {_VALUE}")
    return Grade(number)


def _raised(error: BaseException, apart: bool) -> Grade:
    if isinstance(error, KeyboardInterrupt) and not apart:
        raise error
    return Grade(None, f"raised {described(error)}", cause=error)


def finished(value: Awaitable[Any]) -> Any:
    """Wait for it, in a loop of its own."""
    import asyncio  # noqa: PLC0415
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(value))
    # asyncio.run refuses to start where a loop is already running, as in a notebook: a thread of its own
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _awaited(value)).result()


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
