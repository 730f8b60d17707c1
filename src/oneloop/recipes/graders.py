"""What the name of a reward stands for, and whether the data has what it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from oneloop.config import MARK, Run
from oneloop.data import Loaded
from oneloop.errors import ConfigError, DataError
from oneloop.recipes.given import function_name
from oneloop.rewards import Limits, NamedReward, Pool, RewardScorer
from oneloop.rewards.adapters import NATIVE, alternatives, missing, signature_of
from oneloop.rewards.code import UnitTests
from oneloop.rewards.guarded import Guarded
from oneloop.rewards.shipped import SHIPPED, shipped, short_name
from oneloop.tasks.named import is_played, is_task, named_task


class Graders:
    """Reward functions by name: shipped, a task's own, handed over by Python, or in a process of their own, which is
    one for each name, whoever asks for it.

    Args:
        functions: what Python handed over, by its description.
    """

    def __init__(
        self, limits: Limits | None = None, functions: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    ) -> None:
        self._limits, self._functions = limits or Limits(), functions
        self._pools, self._shipped, self._given = dict[str, Pool](), dict[str, Any](), dict[str, Any]()

    def named(self, specs: Sequence[str], source: str, setting: str = "reward") -> tuple[NamedReward, ...]:
        """The functions in order; without any, the grader of the task that the data comes from.

        Args:
            setting: where they were to be named, for messages.

        Raises: ConfigError for a name that stands for nothing, and for two rewards of one name.
        """
        if not specs and not is_task(source):
            if source.startswith(MARK):
                raise ConfigError(f"data from Python has no grader of its own. Fix: {setting}=function, or a spec")
            flag = setting.replace("_", "-")
            raise ConfigError(f"{source} has no grader of its own. Fix: --{flag} file.py:function")
        named = tuple(self._of(spec) for spec in specs or (source,))
        RewardScorer(named)  # refuses two rewards of one name, before a model is loaded
        return named

    def _of(self, spec: str) -> NamedReward:
        if spec in self._functions:
            name = function_name(self._functions[spec])
            return NamedReward(name=name, function=self._guarded(spec, name))
        short = short_name(spec)
        name = short.partition("?")[0]
        if name in SHIPPED:
            if short not in self._shipped:
                self._shipped[short] = shipped(short, self._limits)
            return NamedReward(name=name, function=self._shipped[short])
        if is_task(spec):
            if is_played(spec):  # refused before a model is loaded
                named_task(spec).reward(())
            return NamedReward(name=name.partition(":")[2], function=named_task(spec, "--reward").reward)
        if spec not in self._pools:
            self._pools[spec] = Pool(spec, self._limits)
        return NamedReward(name=self._pools[spec].name, function=self._pools[spec])

    def _guarded(self, spec: str, name: str) -> Any:
        function = self._functions[spec]
        if signature_of(function).ours:
            return function
        if spec not in self._given:
            self._given[spec] = Guarded(function, name, self._limits.timeout)
        return self._given[spec]


def training_rewards(run: Run, graders: Graders) -> tuple[NamedReward, ...]:
    """The rewards by name; the learned one is loaded with the models, and an environment gives its own."""
    judged = bool(run.reward_model or run.environment)
    named = () if judged and not run.reward else graders.named(run.reward, run.data)
    count = len(named) + bool(run.reward_model) + bool(run.environment)
    if run.reward_weights and len(run.reward_weights) != count:
        raise ConfigError(f"--reward-weights has {len(run.reward_weights)} values for {count} rewards")
    weights = run.reward_weights or (1.0,) * count
    own = weights[1:] if run.environment else weights  # the environment's comes first
    return tuple(replace(reward, weight=weight) for reward, weight in zip(named, own, strict=False))


def check_columns(rewards: Sequence[NamedReward], data: Loaded) -> None:
    """Every row has the columns that rewards cannot do without; a null counts as there, and is theirs to judge.

    Raises: ConfigError for a column that no row has; DataError naming the first row without it.
    """
    every = sorted((data.columns | data.partial) - {"prompt"})
    for reward in rewards:
        signature = reward.grader.signature
        if (column := signature.lacks(every)) is not None:
            raise ConfigError(missing(reward.name, column, signature, every))
        for column in signature.columns:
            names = alternatives(column, signature.form)
            if place := data.lacking(names):
                raise DataError(
                    f"{place}: reward {reward.name} wants {column!r}, and this row has none. "
                    f"Fix: add {column!r}, null where there is none"
                )


def isolation_of(reward: NamedReward) -> str:
    """What holds the programs that it runs; "" where it runs none."""
    return reward.function.isolation if isinstance(reward.function, UnitTests) else ""


def form_of(reward: NamedReward) -> str:
    """What there is to say of it before the run."""
    if tier := isolation_of(reward):
        return f"reward {reward.name}: programs are isolated by {tier}"
    form = reward.grader.signature.form
    once = "once per completion" if form.each else "once per batch"
    return "" if form is NATIVE else f"reward {reward.name}: called in {form.name}'s form, {form.call}, {once}"
