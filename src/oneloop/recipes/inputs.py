"""What a run reads from files: rows and reward functions, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.model.lora import check_available
from oneloop.model.template import read_template, read_variables
from oneloop.recipes.given import NOTHING, Given, function_name
from oneloop.recipes.resolve import Algorithm, kind_of
from oneloop.record.sinks import check_installed
from oneloop.rewards import NamedReward, RewardScorer, load_reward
from oneloop.tasks import TASKS
from oneloop.tasks.source import Kind, fingerprint, load_rows

Rows = list[dict[str, Any]]
Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Inputs:
    """What a run reads from files, checked before any model is loaded."""

    kind: Kind
    rows: Rows
    eval_rows: Rows
    rewards: tuple[NamedReward, ...]
    eval_rewards: tuple[NamedReward, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.rows)


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
    rows, eval_rows = given.train_rows(kind), given.test_rows(kind)
    if rows is None:
        rows = load_rows(run.data, kind, split="train", size=run.data_size, seed=run.seed)
    source = run.eval_data or (run.data if run.data.startswith("task:") else "")
    if eval_rows is None:
        eval_rows = load_rows(source, kind, split="test", size=run.eval_size, seed=run.seed) if source else []
    if run.keep_best and not eval_rows:
        raise ConfigError(
            "--keep-best needs held-out data: by training data the best model is the one that has learned it by heart. "
            "Fix: --eval-data held_out.jsonl"
        )
    rewards: tuple[NamedReward, ...] = ()
    eval_rewards: tuple[NamedReward, ...] = ()
    if kind == "prompts":
        taught = run.teacher and not run.reward and not run.reward_model
        rewards = () if taught else training_rewards(run, given.functions)
        specs = run.eval_reward or run.reward
        eval_rewards = task_or_named(specs, source or run.data, given.functions) if eval_rows else ()
    elif run.reward or run.reward_model:
        raise ConfigError(f"--reward: {algorithm.name} learns from {kind} and never calls a reward. Fix: leave it out")
    return Inputs(kind, rows, eval_rows, rewards, eval_rewards)


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
    if not specs and not source.startswith("task:"):
        raise ConfigError(f"--data {source} has no grader of its own. Fix: --reward file.py:function")
    named = tuple(_reward(spec, functions) for spec in specs or (source,))
    RewardScorer(named)  # refuses two rewards of one name, before a model is loaded
    return named


def _reward(spec: str, functions: Functions) -> NamedReward:
    if spec in functions:
        return NamedReward(name=function_name(functions[spec]), function=functions[spec])
    if not spec.startswith("task:"):
        return load_reward(spec)
    name = spec.removeprefix("task:")
    if name not in TASKS:
        raise ConfigError(f"--reward {spec}: there is no task {name!r}; known: {', '.join(sorted(TASKS))}")
    return NamedReward(name=name, function=TASKS[name].reward)
