"""How an agent plays, by whole episodes from seeds that training never draws."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from oneloop.classic.environments import Environments
from oneloop.classic.episodes import Played, episodes_of, trajectory
from oneloop.classic.save import Player
from oneloop.seeds import named_seed
from oneloop.types import Trajectory

SIDE_BY_SIDE = 10
"""Environments of an evaluation."""
IN_TRAINING = "evaluation"
"""The stream of seeds of a run's own evaluations, by which `--keep-best` chooses."""


def played(player: Player, episodes: int, seed: int, *, stream: str, sampled: bool) -> list[Trajectory]:
    """Whole episodes, as many in one environment as in another: the first ones to end would be the short ones.

    They come in the order of their environments: two agents' episodes from the same seed stand at the same place.

    Args:
        stream: with `seed`, it names the episodes' seeds and the random numbers of drawn actions.
        sampled: actions are drawn from the policy; else they are the most likely ones.
    """
    environments = Environments(player.env, min(episodes, SIDE_BY_SIDE), seed, stream)
    with closing(environments):
        ended = _played(player, environments, episodes, named_seed(seed, stream), sampled)
    ended.sort(key=lambda one: (one[0].place, one[0].number))
    return [trajectory(player.env, group, episode, reward, [(0, 0)]) for group, (episode, reward) in enumerate(ended)]


def _played(
    player: Player, environments: Environments, episodes: int, seed: int, sampled: bool
) -> list[tuple[Played, float]]:
    wanted = np.array([len(range(place, episodes, environments.count)) for place in range(environments.count)])
    rng, returns = np.random.default_rng(seed), np.zeros(environments.count)
    found: list[tuple[Played, float]] = []
    while wanted.any():
        noise = player.agent.head.noise(rng, environments.count) if sampled else None
        result = environments.step(player.agent.act(player.sees(environments.observations), noise))
        returns += result.rewards
        for episode in result.ended:
            if wanted[episode.place]:
                wanted[episode.place] -= 1
                found.append((episode, float(returns[episode.place])))
            returns[episode.place] = 0
    return found


def evaluation_scalars(player: Player, episodes: int, seed: int) -> dict[str, float]:
    """`eval/reward`: the mean return with the most likely actions; `eval/sampled/reward` with drawn ones."""
    scalars: dict[str, float] = {}
    for name, sampled in (("eval", False), ("eval/sampled", True)):
        every = episodes_of(played(player, episodes, seed, stream=IN_TRAINING, sampled=sampled))
        returns = np.array([episode.reward for episode in every])
        scalars |= {
            f"{name}/reward": float(returns.mean()),
            f"{name}/reward_std": float(returns.std()),
            f"{name}/episode_length/mean": float(np.mean([episode.length for episode in every])),
        }
    return scalars
