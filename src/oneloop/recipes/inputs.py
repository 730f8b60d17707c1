"""What a run reads from files: rows and reward functions, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from oneloop.config import Run
from oneloop.data import Kind, Loaded, Rows
from oneloop.errors import ConfigError
from oneloop.model.lora import check_available
from oneloop.model.template import read_template, read_variables
from oneloop.recipes.resolve import Algorithm, kind_of
from oneloop.recipes.rows import read_rows
from oneloop.rewards import NamedReward, RewardScorer, load_reward
from oneloop.tasks.named import is_task, named_task


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


def read_inputs(run: Run, algorithm: Algorithm) -> Inputs:
    if run.lora:
        check_available(f"--lora {run.lora}")
    read_variables(run.chat_template_kwargs)
    if run.chat_template:
        read_template(run.chat_template)
    kind = kind_of(algorithm)
    data, eval_data = read_rows(run, kind)
    rewards: tuple[NamedReward, ...] = ()
    eval_rewards: tuple[NamedReward, ...] = ()
    if kind == "prompts":
        rewards = training_rewards(run)
        eval_rewards = task_or_named(run.eval_reward or run.reward, run.eval_data or run.data) if eval_data else ()
    elif run.reward or run.reward_model:
        raise ConfigError(f"--reward: {run.algorithm} learns from {kind} and never calls a reward. Fix: leave it out")
    return Inputs(data, eval_data, rewards, eval_rewards)


def training_rewards(run: Run) -> tuple[NamedReward, ...]:
    """The rewards by name; the learned one is loaded with the models."""
    named = () if run.reward_model and not run.reward else task_or_named(run.reward, run.data)
    count = len(named) + bool(run.reward_model)
    if run.reward_weights and len(run.reward_weights) != count:
        raise ConfigError(f"--reward-weights has {len(run.reward_weights)} values for {count} rewards")
    weights = run.reward_weights or (1.0,) * count
    return tuple(replace(reward, weight=weight) for reward, weight in zip(named, weights, strict=False))


def task_or_named(specs: Sequence[str], source: str) -> tuple[NamedReward, ...]:
    """Reward functions by name; without any, a task's own grader."""
    if not specs and not is_task(source):
        raise ConfigError(f"--data {source} has no grader of its own. Fix: --reward file.py:function")
    named = tuple(_reward(spec) for spec in specs or (source,))
    RewardScorer(named)  # refuses two rewards of one name, before a model is loaded
    return named


def _reward(spec: str) -> NamedReward:
    if not is_task(spec):
        return load_reward(spec)
    name = spec.partition(":")[2].partition("?")[0]
    return NamedReward(name=name, function=named_task(spec).reward)
