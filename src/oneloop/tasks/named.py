"""Tasks by the name that `--data` and `--reward` give them."""

from __future__ import annotations

from difflib import get_close_matches

from oneloop.environments import verifiers
from oneloop.errors import ConfigError
from oneloop.tasks import PLAYED, TASKS
from oneloop.tasks.reasoning_gym import SCHEME, reasoning_gym_task
from oneloop.tasks.task import Task
from oneloop.tasks.verifiers import VerifiersTask

BUILT_IN = "task:"


def is_task(spec: str) -> bool:
    """Whether a name is one of a task: task:NAME, reasoning-gym:NAME or verifiers:ID."""
    return spec.startswith((BUILT_IN, SCHEME, verifiers.SCHEME))


def is_played(spec: str) -> bool:
    """Whether a name is one of a task that is played in an environment."""
    return spec.startswith(verifiers.SCHEME) or (spec.startswith(BUILT_IN) and spec.removeprefix(BUILT_IN) in PLAYED)


def named_task(spec: str, flag: str = "--data") -> Task:
    """Raises: ConfigError with the nearest name."""
    if spec.startswith(SCHEME):
        return reasoning_gym_task(spec)
    if spec.startswith(verifiers.SCHEME):
        return VerifiersTask(spec)
    name = spec.removeprefix(BUILT_IN)
    every = {**TASKS, **PLAYED}
    if name not in every:
        near = get_close_matches(name, every, 1, 0.0)[0]
        raise ConfigError(f"{flag} {spec}: there is no task {name!r}. Did you mean {BUILT_IN}{near}?")
    return every[name]
