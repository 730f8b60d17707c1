"""What a run reads from files: rows and reward functions, checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.model.template import read_template, read_variables
from oneloop.recipes.given import NOTHING, Given
from oneloop.recipes.graders import Graders, check_columns, form_of, training_rewards
from oneloop.record.sinks import check_installed
from oneloop.rewards import Limits, NamedReward
from oneloop.tasks.named import is_task
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
        return tuple(dict.fromkeys(line for reward in (*self.rewards, *self.eval_rewards) if (line := form_of(reward))))

    def close(self) -> None:
        """End the processes of reward functions."""
        for reward in (*self.rewards, *self.eval_rewards):
            reward.grader.close()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.rows)


def read_inputs(run: Run, kind: Kind, given: Given = NOTHING) -> Inputs:
    """Never loads torch: `oneloop.recipes.preflight` asks before that.

    Raises: ConfigError and DataError for what cannot be trained on.
    """
    given.check(run)
    check_installed(run.report_to)
    read_variables(run.chat_template_kwargs)
    if run.chat_template:
        read_template(run.chat_template)
    rows, eval_rows = given.train_rows(kind), given.test_rows(kind)
    if rows is None:
        rows = load_rows(run.data, kind, split="train", size=run.data_size, seed=run.seed)
    source = run.eval_data or (run.data if is_task(run.data) else "")
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
        graders = Graders(Limits(timeout=run.reward_timeout, workers=run.reward_workers), given.functions)
        taught = run.teacher and not (run.reward or run.reward_model)
        rewards = () if taught else training_rewards(run, graders)
        check_columns(rewards, rows, run.data)
        if eval_rows:
            eval_rewards = graders.named(run.eval_reward or run.reward, source or run.data)
            check_columns(eval_rewards, eval_rows, source)
    elif run.reward or run.reward_model:
        raise ConfigError(f"--reward: {run.algorithm} learns from {kind} and never calls a reward. Fix: leave it out")
    return Inputs(kind, rows, eval_rows, rewards, eval_rewards)
