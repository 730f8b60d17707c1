"""What a run reads from files: rows and reward functions, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.rewards import NamedReward, RewardScorer, load_reward
from oneloop.tasks import TASKS
from oneloop.tasks.source import Kind, fingerprint, load_rows

Rows = list[dict[str, Any]]


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


def read_inputs(run: Run, kind: Kind) -> Inputs:
    """Never loads torch: `oneloop.recipes.preflight` asks before that."""
    rows = load_rows(run.data, kind, split="train", size=run.data_size, seed=run.seed)
    source = run.eval_data or (run.data if run.data.startswith("task:") else "")
    eval_rows = load_rows(source, kind, split="test", size=run.eval_size, seed=run.seed) if source else []
    rewards: tuple[NamedReward, ...] = ()
    eval_rewards: tuple[NamedReward, ...] = ()
    if kind == "prompts":
        rewards = training_rewards(run)
        eval_rewards = task_or_named(run.eval_reward or run.reward, source or run.data) if eval_rows else ()
    elif run.reward or run.reward_model:
        raise ConfigError(f"--reward: {run.algorithm} learns from {kind} and never calls a reward. Fix: leave it out")
    return Inputs(kind, rows, eval_rows, rewards, eval_rewards)


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
    if not specs and not source.startswith("task:"):
        raise ConfigError(f"--data {source} has no grader of its own. Fix: --reward file.py:function")
    named = tuple(_reward(spec) for spec in specs or (source,))
    RewardScorer(named)  # refuses two rewards of one name, before a model is loaded
    return named


def _reward(spec: str) -> NamedReward:
    if not spec.startswith("task:"):
        return load_reward(spec)
    name = spec.removeprefix("task:")
    if name not in TASKS:
        raise ConfigError(f"--reward {spec}: there is no task {name!r}; known: {', '.join(sorted(TASKS))}")
    return NamedReward(name=name, function=TASKS[name].reward)
