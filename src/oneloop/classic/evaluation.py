"""How an agent plays, by whole episodes from seeds that training never draws."""

from __future__ import annotations

import numpy as np

from oneloop.classic.environments import Environments
from oneloop.classic.experience import Episode
from oneloop.classic.save import Player
from oneloop.seeds import named_seed

SIDE_BY_SIDE = 10
"""Environments of an evaluation."""


def played(player: Player, episodes: int, seed: int, *, sampled: bool) -> list[Episode]:
    """Whole episodes, as many in one environment as in another: the first ones to end would be the short ones.

    Args:
        sampled: actions are drawn from the policy; else they are the most likely ones.
    """
    environments = Environments(player.env, min(episodes, SIDE_BY_SIDE), seed, "evaluation")
    try:
        return _played(player, environments, episodes, named_seed(seed, "evaluation"), sampled)
    finally:
        environments.close()


def _played(player: Player, environments: Environments, episodes: int, seed: int, sampled: bool) -> list[Episode]:
    wanted = np.array([len(range(place, episodes, environments.count)) for place in range(environments.count)])
    rng = np.random.default_rng(seed)
    returns, lengths = np.zeros(environments.count), np.zeros(environments.count, dtype=np.int64)
    found: list[Episode] = []
    while wanted.any():
        noise = player.agent.head.noise(rng, environments.count) if sampled else None
        result = environments.step(player.agent.act(player.sees(environments.observations), noise))
        returns += result.rewards
        lengths += 1
        for place in (result.terminated | result.truncated).nonzero()[0]:
            if wanted[place]:
                wanted[place] -= 1
                found.append(Episode(float(returns[place]), int(lengths[place])))
            returns[place] = lengths[place] = 0
    return found


def evaluation_scalars(player: Player, episodes: int, seed: int) -> dict[str, float]:
    """`eval/reward`: the mean return with the most likely actions; `eval/sampled/reward` with drawn ones."""
    scalars: dict[str, float] = {}
    for name, sampled in (("eval", False), ("eval/sampled", True)):
        every = played(player, episodes, seed, sampled=sampled)
        returns = np.array([episode.reward for episode in every])
        scalars |= {
            f"{name}/reward": float(returns.mean()),
            f"{name}/reward_std": float(returns.std()),
            f"{name}/episode_length/mean": float(np.mean([episode.length for episode in every])),
        }
    return scalars
