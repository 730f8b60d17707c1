"""Tasks of the reasoning-gym package: `reasoning-gym:chain_sum?size=2000&seed=1`, with the package's own scorers."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from oneloop.errors import ConfigError
from oneloop.tasks.task import Row, Split, in_test

SCHEME = "reasoning-gym:"
_MOST = 100_000
"""Questions of a generator without `size`: some of them plan for all at once."""
_EVALUATES = frozenset({"eval", "exec", "parse_expr", "sympify"})
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True)
class ReasoningGym:
    """One of the package's generators.

    Args:
        name: as in the package's registry.
        settings: its configuration; `size` counts the questions of both splits together, `seed` names them. Left out,
            as many are made as are asked for, and the run's seed names them.
    """

    name: str
    settings: Mapping[str, Any]

    def prompts(self, count: int, seed: int, split: Split) -> list[Row]:
        """Rows with `prompt`, `answer`, `metadata` (as JSON) and `question`, the number that the scorer finds it by."""
        dataset = self._dataset(seed)
        most = self.settings.get("size", min(20 * count + 1000, _MOST))
        rows: list[Row] = []
        for number in range(most):
            entry = dataset[number]
            if in_test(entry["question"]) != (split == "test"):
                continue
            metadata = json.dumps(entry["metadata"], default=str, sort_keys=True)
            rows.append(
                {
                    "prompt": entry["question"],
                    "answer": str(entry["answer"]),
                    "metadata": metadata,
                    "question": f"{seed}:{number}",
                }
            )
            if len(rows) == count and "size" not in self.settings:
                break
        if not rows:
            raise ConfigError(f"{self.spec}: no {split} question among {most}. Fix: a larger size")
        return rows

    def demonstrations(self, count: int, seed: int, split: Split) -> list[Row]:
        return [row | {"completion": row["answer"]} for row in self.prompts(count, seed, split)]

    def preferences(self, count: int, seed: int, split: Split) -> list[Row]:
        raise ConfigError(f"--data {self.spec}: it has one answer to each question, and no worse ones to compare it to")

    def reward(
        self, completions: Sequence[str], answer: Sequence[Any], question: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """What the package's scorer says of the text between the last <answer> tags, or of the whole text.

        The package's own scorer pays for brevity where the answer is a part of the text; where a generator has no
        scorer but that one, an answer counts 1 when it equals the right one, and 0 otherwise. None where the scorer
        raises.
        """
        return [
            self._graded(_final(text), wanted, number)
            for text, wanted, number in zip(completions, answer, question, strict=True)
        ]

    @property
    def spec(self) -> str:
        settings = "&".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{SCHEME}{self.name}" + (f"?{settings}" if settings else "")

    @property
    def scorer(self) -> str:
        """Who scores, in words."""
        return "equality with the answer" if self._has_base_scorer else f"reasoning_gym's scorer of {self.name}"

    def _graded(self, text: str, wanted: Any, question: str) -> float | None:
        if self._has_base_scorer:
            return None if wanted is None else float(text == str(wanted).strip())
        seed, _, number = question.partition(":")
        dataset = self._dataset(int(seed))
        try:
            return float(dataset.score_answer(answer=text, entry=dataset[int(number)]))
        except Exception:  # text that a scorer does not expect says nothing about the answer
            return None

    @cached_property
    def _has_base_scorer(self) -> bool:
        return "score_answer" not in vars(_defining(self._kind))

    @cached_property
    def _kind(self) -> type:
        return _registry(self.spec)[self.name][0]

    def _dataset(self, seed: int) -> Any:
        made: dict[int, Any] = self._made
        if seed not in made:
            config = _registry(self.spec)[self.name][1]
            values = {"seed": seed, "size": _MOST} | dict(self.settings)
            try:
                made[seed] = self._kind(config(**values))
            except (AssertionError, TypeError, ValueError) as error:
                raise ConfigError(f"--data {self.spec}: {error or type(error).__name__}") from error
        return made[seed]

    @cached_property
    def _made(self) -> dict[int, Any]:
        return {}


def reasoning_gym_task(spec: str) -> ReasoningGym:
    """Raises: ConfigError for a missing package, an unknown name or setting, and for generators whose scorer gives the
    model's text to Python to evaluate.
    """
    name, _, query = spec.removeprefix(SCHEME).partition("?")
    registry = _registry(spec)
    if name not in registry:
        near = get_close_matches(name, registry, 1, 0.0)
        raise ConfigError(f"--data {spec}: reasoning-gym has no {name!r}. Did you mean {SCHEME}{near[0]}?")
    known = {field.name for field in fields(registry[name][1])}
    settings: dict[str, Any] = {}
    for pair in query.split("&") if query else ():
        key, equals, text = pair.partition("=")
        if not equals or key not in known:
            raise ConfigError(f"--data {spec}: {pair!r}; {name} takes {', '.join(sorted(known))}")
        settings[key] = _value(text)
    if unsafe := _evaluated_in(_defining(registry[name][0])):
        raise ConfigError(
            f"--data {spec}: its scorer hands the model's text to {unsafe}(), which runs it as Python. "
            "Fix: another task, such as task:countdown, or its questions with a --reward of your own"
        )
    return ReasoningGym(name, settings)


def _registry(spec: str) -> dict[str, tuple[type, type]]:
    try:
        from reasoning_gym.factory import DATASETS  # noqa: PLC0415 an extra, and slow to load
    except ImportError:
        raise ConfigError(f'--data {spec} needs reasoning-gym. Fix: pip install "oneloop[tasks]"') from None
    return DATASETS


def _defining(kind: type) -> type:
    """The class that says how `kind` scores; `kind` itself where only the package's base class does."""
    for ancestor in kind.__mro__:
        if ancestor.__name__ == "ProceduralDataset":
            return kind
        if "score_answer" in vars(ancestor):
            return ancestor
    return kind


def _evaluated_in(kind: type) -> str:
    """What evaluates text as Python among everything that `score_answer` calls in its own module; "" for nothing."""
    if "score_answer" not in vars(kind):
        return ""
    tree = ast.parse(inspect.getsource(inspect.getmodule(kind)))  # pyright: ignore[reportArgumentType]
    calls = {
        node.name: {_called(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    reached, waiting = set(), {"score_answer"}
    while waiting:
        reached |= waiting
        waiting = {name for one in waiting for name in calls.get(one, ())} - reached
    return next(iter(sorted((reached & _EVALUATES) - set(calls))), "")


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _final(text: str) -> str:
    found = _ANSWER.findall(text)
    return (found[-1] if found else text).strip()


def _value(text: str) -> Any:
    """A number, a list of them, a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text
