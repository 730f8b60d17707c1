"""What a run reads from files: rows and reward functions, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from oneloop.config import Run
from oneloop.data import Kind, Loaded, Rows
from oneloop.errors import ConfigError
from oneloop.model.lora import check_available
from oneloop.model.template import read_template, read_variables
from oneloop.recipes.given import NOTHING, Given, function_name
from oneloop.recipes.resolve import Algorithm, kind_of
from oneloop.recipes.rows import read_rows
from oneloop.record.sinks import check_installed
from oneloop.rewards import NamedReward, RewardScorer, load_reward
from oneloop.tasks.named import is_task, named_task

Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Inputs:
    """What a run reads from files, checked before any model is loaded."""

    data: Loaded
    eval_data: Loaded | None
    rewards: tuple[NamedReward, ...]
    eval_rewards: tuple[NamedReward, ...]

    @property
    def kind(self) -> Kind:
        return self.data.kind

    @property
    def rows(self) -> Rows:
        return self.data.rows

    @property
    def eval_rows(self) -> Rows | None:
        return self.eval_data.rows if self.eval_data else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found in the data and what was left out."""
        return (*self.data.notes, *(self.eval_data.notes if self.eval_data else ()))

    @property
    def skipped(self) -> int:
        """Rows that could not be used."""
        return self.data.skipped + (self.eval_data.skipped if self.eval_data else 0)

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint


def read_inputs(run: Run, algorithm: Algorithm, given: Given = NOTHING) -> Inputs:
    """Raises: ConfigError and DataError for what cannot be trained on."""
    given.check(run)
    if run.lora:
        check_available(f"--lora {run.lora}")
    check_installed(run.report_to)
    read_variables(run.chat_template_kwargs)
    if run.chat_template:
        read_template(run.chat_template)
    kind = kind_of(algorithm)
    data, eval_data = read_rows(run, kind, given)
    if run.keep_best and eval_data is None:
        raise ConfigError(
            "--keep-best needs held-out data: by training data the best model is the one that has learned it by heart. "
            "Fix: --eval-data held_out.jsonl"
        )
    rewards: tuple[NamedReward, ...] = ()
    eval_rewards: tuple[NamedReward, ...] = ()
    if kind == "prompts":
        taught = run.teacher and not (run.reward or run.reward_model or given.functions)
        rewards = () if taught else training_rewards(run, given.functions)
        specs = run.eval_reward or run.reward
        eval_rewards = task_or_named(specs, run.eval_data or run.data, given.functions) if eval_data else ()
    elif run.reward or run.reward_model:
        raise ConfigError(f"--reward: {algorithm.name} learns from {kind} and never calls a reward. Fix: leave it out")
    return Inputs(data, eval_data, rewards, eval_rewards)


def training_rewards(run: Run, functions: Functions) -> tuple[NamedReward, ...]:
    """The rewards by name; the learned one is loaded with the models."""
    named = () if run.reward_model and not run.reward else task_or_named(run.reward, run.data, functions)
    count = len(named) + bool(run.reward_model)
    if run.reward_weights and len(run.reward_weights) != count:
        raise ConfigError(f"--reward-weights has {len(run.reward_weights)} values for {count} rewards")
    weights = run.reward_weights or (1.0,) * count
    return tuple(replace(reward, weight=weight) for reward, weight in zip(named, weights, strict=False))


def task_or_named(
    specs: Sequence[str], source: str, functions: Functions = MappingProxyType({})
) -> tuple[NamedReward, ...]:
    """Reward functions by name, or by the description of one that Python handed over; without any, a task's own
    grader.
    """
    if not specs and not is_task(source):
        raise ConfigError(f"--data {source} has no grader of its own. Fix: --reward file.py:function")
    named = tuple(_reward(spec, functions) for spec in specs or (source,))
    RewardScorer(named)  # refuses two rewards of one name, before a model is loaded
    return named


def _reward(spec: str, functions: Functions) -> NamedReward:
    if spec in functions:
        return NamedReward(name=function_name(functions[spec]), function=functions[spec])
    if not is_task(spec):
        return load_reward(spec)
    name = spec.partition(":")[2].partition("?")[0]
    return NamedReward(name=name, function=named_task(spec).reward)
