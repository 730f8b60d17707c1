"""What a run with --env reads before anything is loaded: whether there is such an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oneloop.classic.environments import Environments
from oneloop.config import Run
from oneloop.data import Kind
from oneloop.errors import ConfigError, EnvironmentFailed


@dataclass(frozen=True)
class AgentInputs:
    """In the place of `oneloop.recipes.inputs.Inputs`: an environment has neither rows nor reward functions."""

    env: str
    kind: Kind = "prompts"
    """As for methods that learn from samples of their own."""
    rows: Sequence[Any] = ()
    eval_rows: Sequence[Any] | None = None
    isolation: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        return f"env:{self.env}"

    def close(self) -> None: ...


def read_agent_inputs(run: Run, kind: Kind) -> AgentInputs:
    """Never loads torch.

    Raises: ConfigError for an algorithm or an environment that no agent can be trained with.
    """
    if kind != "prompts":
        raise ConfigError(
            f"--env {run.env}: {run.algorithm} learns from {kind}. Fix: oneloop train ppo --env {run.env}"
        )
    try:
        Environments(run.env, 1, run.seed, "tried").close()
    except EnvironmentFailed as error:
        raise ConfigError(str(error)) from error
    return AgentInputs(run.env)
