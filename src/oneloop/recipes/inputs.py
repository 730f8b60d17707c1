"""What a run reads from files: rows and reward functions, checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from oneloop.config import Run
from oneloop.data import Kind, Loaded, Rows
from oneloop.environments import Stage, environment_of, load_environment
from oneloop.errors import ConfigError
from oneloop.model.template import read_template, read_variables
from oneloop.recipes.given import NOTHING, Given, function_name
from oneloop.recipes.graders import Graders, check_columns, form_of, isolation_of, training_rewards
from oneloop.recipes.rows import read_rows
from oneloop.record.sinks import check_installed
from oneloop.rewards import Limits, NamedReward


@dataclass(frozen=True)
class Inputs:
    """What a run reads from files, checked before any model is loaded."""

    data: Loaded
    eval_data: Loaded | None
    rewards: tuple[NamedReward, ...]
    eval_rewards: tuple[NamedReward, ...]
    stage: Stage | None = None
    """Where the environment plays, if there is one."""

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
        """What was found in the data, what was left out, and how reward functions are called that are not native."""
        every = [line for loaded in (self.data, self.eval_data) if loaded for line in loaded.notes]
        return tuple(dict.fromkeys([*every, *filter(None, map(form_of, (*self.rewards, *self.eval_rewards)))]))

    @property
    def isolation(self) -> dict[str, str]:
        """By reward that runs programs: what holds them."""
        tiers = {reward.name: isolation_of(reward) for reward in (*self.rewards, *self.eval_rewards)}
        return {name: tier for name, tier in tiers.items() if tier}

    @property
    def skipped(self) -> int:
        """Rows that could not be used."""
        return self.data.skipped + (self.eval_data.skipped if self.eval_data else 0)

    def close(self) -> None:
        """End the processes of reward functions, and what environments run in."""
        for reward in (*self.rewards, *self.eval_rewards):
            reward.grader.close()
        if self.stage is not None:
            self.stage.close()

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint


def read_inputs(run: Run, kind: Kind, given: Given = NOTHING) -> Inputs:
    """Never loads torch: `oneloop.recipes.preflight` asks before that.

    Raises: ConfigError and DataError for what cannot be trained on.
    """
    given.check(run)
    for asked in word_checks(run):
        asked()
    data, eval_data = read_rows(run, kind, given)
    check_held_out(run, eval_data)
    graders = Graders(Limits(timeout=run.reward_timeout, workers=run.reward_workers), given.functions)
    rewards, eval_rewards = read_rewards(run, kind, graders, held_out=eval_data is not None)
    stage = read_environment(run, kind, (*rewards, *eval_rewards), given.environment)
    check_columns(rewards, data)
    if eval_data is not None:
        check_columns(eval_rewards, eval_data)
    return Inputs(data, eval_data, rewards, eval_rewards, stage)


def read_environment(run: Run, kind: Kind, rewards: Sequence[NamedReward], made: Any = None) -> Stage | None:
    """Where it plays.

    Args:
        made: what Python handed over instead of a name.

    Raises: ConfigError for one that cannot be loaded, or is called like a reward function, and for any where nothing
    is sampled.
    """
    if not run.environment:
        return None
    if kind != "prompts":
        raise ConfigError(
            f"--environment {run.environment}: {run.algorithm} learns from {kind} and draws nothing that could be "
            "answered. Fix: leave it out; conversations to imitate are rows with messages"
        )
    if made is None:
        environment = load_environment(run.environment)
    else:
        environment = environment_of(made, function_name(made), f"environment = {run.environment}")
    check_parts(environment.name, rewards)
    return Stage(environment, run.reward_timeout)


def check_parts(environment: str, rewards: Sequence[NamedReward]) -> None:
    """Raises: ConfigError for a reward function that is called like the environment: both are logged by name."""
    if any(reward.name == environment for reward in rewards):
        raise ConfigError(
            f"--reward: a function is named {environment!r}, as the environment is, and rewards are logged by name. "
            "Fix: rename one"
        )


def word_checks(run: Run) -> Iterator[Callable[[], object]]:
    """Checks of settings that say what to read, or whom to tell."""
    yield lambda: check_installed(run.report_to)
    yield lambda: read_variables(run.chat_template_kwargs)
    if run.chat_template:
        yield lambda: read_template(run.chat_template)


def check_held_out(run: Run, eval_data: Loaded | None) -> None:
    """Raises: ConfigError where the best model is to be kept and nothing could tell which one that is."""
    if run.keep_best and eval_data is None:
        raise ConfigError(
            "--keep-best needs held-out data: by training data the best model is the one that has learned it by heart. "
            "Fix: --eval-data held_out.jsonl"
        )


def read_rewards(
    run: Run, kind: Kind, graders: Graders, *, held_out: bool
) -> tuple[tuple[NamedReward, ...], tuple[NamedReward, ...]]:
    """The rewards of training and of held-out rows.

    Raises: ConfigError for one that cannot be loaded, and for any where none is called.
    """
    if kind != "prompts":
        if run.reward or run.reward_model:
            raise ConfigError(
                f"--reward: {run.algorithm} learns from {kind} and never calls a reward. Fix: leave it out"
            )
        return (), ()
    taught = run.teacher and not (run.reward or run.reward_model)
    rewards = () if taught else training_rewards(run, graders)
    if not held_out:
        return rewards, ()
    named = run.eval_reward or run.reward
    if run.environment and not named:
        return rewards, ()
    return rewards, graders.named(named, run.eval_data or run.data, "eval_reward")
