"""An agent's returns by whole episodes, from seeds that training has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from oneloop.classic.environments import spaces_in
from oneloop.classic.evaluation import played
from oneloop.classic.save import Player, is_agent, load_player
from oneloop.errors import ConfigError
from oneloop.recipes.evaluate import Evaluation
from oneloop.recipes.measured import Measured, Value
from oneloop.types import Trajectory

MOST_LIKELY, DRAWN = "return", "return, drawn"
"""How actions are taken: the most likely one each time, or a draw from the policy."""
STREAM = "exam"
"""Of seeds, and nobody else's: on the episodes that `--keep-best` chose by, the best agent looks better than it is."""


@dataclass(frozen=True, kw_only=True)
class AgentExam:
    """What an agent is measured on. Names are those of `oneloop eval`."""

    env: str
    episodes: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.episodes < 2:
            raise ConfigError(f"--episodes is {self.episodes}; wanted at least 2: an interval needs a spread")


def evaluate_agent(model: str, exam: AgentExam) -> Evaluation:
    """The mean return with the most likely actions, with drawn ones, and the length of the former's episodes.

    Raises: ConfigError and CheckpointError.
    """
    if not is_agent(Path(model)):
        raise ConfigError(f"--model {model} holds no agent. Fix: the final/ of a run with --env {exam.env}")
    player = load_player(Path(model))
    _check_spaces(model, player, exam.env)
    player = replace(player, env=exam.env)
    likely, drawn = (
        played(player, exam.episodes, exam.seed, stream=STREAM, sampled=sampled) for sampled in (False, True)
    )
    measured = (_returns(MOST_LIKELY, likely), _returns(DRAWN, drawn), _lengths(likely))
    return Evaluation(model, "prompts", measured, tuple(likely))


def _check_spaces(model: str, player: Player, env: str) -> None:
    if spaces_in(env) != player.spaces:
        raise ConfigError(
            f"--env {env}: {model} was trained in {player.env}, whose observations or actions are others. Fix: --env "
            f"{player.env}"
        )


def _returns(name: str, items: list[Trajectory]) -> Measured:
    return Measured(name, tuple(Value(item.prompt.id, item.reward.value) for item in items), share=False)


def _lengths(items: list[Trajectory]) -> Measured:
    values = (Value(item.prompt.id, float(len(item.completion.tokens))) for item in items)
    return Measured("length", tuple(values), share=False)
