"""What a run reads from files: rows and reward functions, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oneloop.config import Run
from oneloop.errors import ConfigError, DataError
from oneloop.model.lora import check_available
from oneloop.model.template import read_template, read_variables
from oneloop.recipes.resolve import Algorithm, kind_of
from oneloop.record.sinks import check_installed
from oneloop.rewards import Limits, NamedReward, Pool, RewardScorer
from oneloop.rewards.adapters import NATIVE, alternatives, missing
from oneloop.rewards.shipped import SHIPPED, shipped
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
    def notes(self) -> tuple[str, ...]:
        """How reward functions are called that are not in the native form."""
        return tuple(
            dict.fromkeys(line for reward in (*self.rewards, *self.eval_rewards) if (line := _form_of(reward)))
        )

    def close(self) -> None:
        """End the processes of reward functions."""
        for reward in (*self.rewards, *self.eval_rewards):
            reward.grader.close()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.rows)


def read_inputs(run: Run, algorithm: Algorithm) -> Inputs:
    if run.lora:
        check_available(f"--lora {run.lora}")
    check_installed(run.report_to)
    read_variables(run.chat_template_kwargs)
    if run.chat_template:
        read_template(run.chat_template)
    kind = kind_of(algorithm)
    rows = load_rows(run.data, kind, split="train", size=run.data_size, seed=run.seed)
    source = run.eval_data or (run.data if run.data.startswith("task:") else "")
    eval_rows = load_rows(source, kind, split="test", size=run.eval_size, seed=run.seed) if source else []
    if run.keep_best and not eval_rows:
        raise ConfigError(
            "--keep-best needs held-out data: by training data the best model is the one that has learned it by heart. "
            "Fix: --eval-data held_out.jsonl"
        )
    rewards: tuple[NamedReward, ...] = ()
    eval_rewards: tuple[NamedReward, ...] = ()
    if kind == "prompts":
        pools = Pools(Limits(timeout=run.reward_timeout, workers=run.reward_workers))
        taught = run.teacher and not run.reward and not run.reward_model
        rewards = () if taught else training_rewards(run, pools)
        check_columns(rewards, rows, run.data)
        if eval_rows:
            eval_rewards = task_or_named(run.eval_reward or run.reward, source or run.data, pools)
            check_columns(eval_rewards, eval_rows, source)
    elif run.reward or run.reward_model:
        raise ConfigError(f"--reward: {run.algorithm} learns from {kind} and never calls a reward. Fix: leave it out")
    return Inputs(kind, rows, eval_rows, rewards, eval_rewards)


def training_rewards(run: Run, pools: Pools) -> tuple[NamedReward, ...]:
    """The rewards by name; the learned one is loaded with the models."""
    named = () if run.reward_model and not run.reward else task_or_named(run.reward, run.data, pools)
    count = len(named) + bool(run.reward_model)
    if run.reward_weights and len(run.reward_weights) != count:
        raise ConfigError(f"--reward-weights has {len(run.reward_weights)} values for {count} rewards")
    weights = run.reward_weights or (1.0,) * count
    return tuple(replace(reward, weight=weight) for reward, weight in zip(named, weights, strict=False))


class Pools:
    """Processes of reward functions: one pool for each name, whoever asks for it."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._by_spec = limits, dict[str, Pool]()

    def __getitem__(self, spec: str) -> Pool:
        if spec not in self._by_spec:
            self._by_spec[spec] = Pool(spec, self._limits)
        return self._by_spec[spec]


def task_or_named(specs: Sequence[str], source: str, pools: Pools | None = None) -> tuple[NamedReward, ...]:
    """Reward functions by name, in processes of their own; without any, a task's own grader, in this one."""
    if not specs and not source.startswith("task:"):
        raise ConfigError(f"--data {source} has no grader of its own. Fix: --reward file.py:function")
    pools = pools or Pools(Limits())
    named = tuple(_reward(spec, pools) for spec in specs or (source,))
    RewardScorer(named)  # refuses two rewards of one name, before a model is loaded
    return named


def check_columns(
    rewards: Sequence[NamedReward], rows: Rows, source: str, where: Callable[[int], str] | None = None
) -> None:
    """Every row has the columns that rewards cannot do without; a null counts as there, and is theirs to judge.

    Args:
        where: place of a row, as a person would look for it.

    Raises: ConfigError for a column that no row has; DataError naming the first row without it.
    """
    for reward in rewards:
        signature = reward.grader.signature
        if not signature.columns:
            continue
        every = list(dict.fromkeys(name for row in rows for name in row if name != "prompt"))
        if (column := signature.lacks(every)) is not None:
            raise ConfigError(missing(reward.name, column, signature, every))
        for column in signature.columns:
            names = alternatives(column, signature.form)
            without = next((number for number, row in enumerate(rows) if not any(name in row for name in names)), None)
            if without is not None:
                place = where(without) if where else f"{source}:{without + 1}"
                raise DataError(
                    f"{place}: reward {reward.name} wants {column!r}, and this row has only {list(rows[without])}. "
                    f"Fix: add {column!r}, null where there is none"
                )


def _form_of(reward: NamedReward) -> str:
    form = reward.grader.signature.form
    once = "once per completion" if form.each else "once per batch"
    return "" if form is NATIVE else f"reward {reward.name}: called in {form.name}'s form, {form.call}, {once}"


def _reward(spec: str, pools: Pools) -> NamedReward:
    if spec.partition("?")[0] in SHIPPED:
        return NamedReward(name=spec.partition("?")[0], function=shipped(spec))
    if not spec.startswith("task:"):
        return NamedReward(name=pools[spec].name, function=pools[spec])
    name = spec.removeprefix("task:")
    if name not in TASKS:
        raise ConfigError(f"--reward {spec}: there is no task {name!r}; known: {', '.join(sorted(TASKS))}")
    return NamedReward(name=name, function=TASKS[name].reward)
