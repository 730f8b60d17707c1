"""Agents on disk: config.json says what they are, model.safetensors holds their numbers. Nothing is pickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oneloop.classic.normalize import Observations
from oneloop.classic.policy import Agent, Categorical, Gaussian
from oneloop.classic.spaces import Spaces
from oneloop.errors import CheckpointError
from oneloop.model.source import environment_of

CONFIG, WEIGHTS, CRITIC = "config.json", "model.safetensors", "critic."


@dataclass(frozen=True)
class Player:
    """A policy with what it needs to act: how it sees observations, and what it may do.

    Args:
        env: Gymnasium's name of the environment that it was made for.
    """

    env: str
    agent: Agent
    spaces: Spaces
    normalized: Observations

    def act(self, observations: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Actions for rows of observations as the environment gives them; without noise the most likely ones."""
        return self.spaces.taken(self.agent.act(self.sees(self.spaces.observed(observations)), noise))

    def sees(self, rows: np.ndarray) -> Float[Tensor, "N D"]:
        """Observations as rows of numbers, normalised."""
        return torch.tensor(self.normalized(rows), dtype=torch.float32)


def new_agent(spaces: Spaces, hidden: tuple[int, ...], *, critic: bool, seed: int) -> Agent:
    head = Categorical(spaces.choices) if spaces.choices else Gaussian(spaces.numbers)
    return Agent(spaces.features, head, hidden, critic=critic, seed=seed)


def save_player(folder: Path, player: Player, hidden: tuple[int, ...]) -> None:
    """The policy, without its critic."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "env": player.env, "hidden": hidden, "spaces": asdict(player.spaces), "observations": player.normalized.state(),
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(about, indent=1), encoding="utf-8")
    state = player.agent.state_dict()
    _write(folder, {name: value for name, value in state.items() if not name.startswith(CRITIC)})


def save_critic(folder: Path, critic: nn.Module) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, critic.state_dict())


def load_player(folder: Path) -> Player:
    """What `save_player` wrote: of a run, its `final/`.

    Raises: CheckpointError for a folder that does not hold one.
    """
    try:
        about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        spaces = Spaces(**{name: _tuples(value) for name, value in about["spaces"].items()})
        normalized = Observations(spaces.features, about["observations"] is not None)
        normalized.restore(about["observations"])
        agent = new_agent(spaces, tuple(about["hidden"]), critic=False, seed=0)
        agent.load_state_dict(_read(folder))
        return Player(str(about["env"]), agent, spaces, normalized)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} holds no agent ({type(error).__name__}: {error})") from error


def is_agent(folder: Path) -> bool:
    """Whether a model folder holds an agent, by its config.json."""
    return bool(environment_of(folder))


def load_weights(agent: Agent, policy: Path, critic: Path) -> None:
    """Of a checkpoint, in place.

    Raises: CheckpointError where they are not this agent's.
    """
    try:
        state = _read(policy)
        if agent.critic is not None:
            state |= {f"{CRITIC}{name}": value for name, value in _read(critic).items()}
        agent.load_state_dict(state)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{policy.parent} does not hold this agent ({type(error).__name__}: {error})") from error


def _write(folder: Path, state: dict[str, Tensor]) -> None:
    # copies: parameters are parts of one tensor, and a file of tensors has each of them for itself
    save_file({name: value.detach().clone() for name, value in state.items()}, folder / WEIGHTS)


def _read(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / WEIGHTS)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
