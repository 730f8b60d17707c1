"""One agent trained by Stable-Baselines3, with oneloop's settings: a JSON line. Runs in an environment of its own."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from time import perf_counter, process_time

import numpy as np
import torch
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

EPISODES = 100
CRITIC = {"CartPole-v1": (512, 20), "Pendulum-v1": (128, 15)}
"""Minibatch and epochs of TRPO's critic."""


class Region(BaseCallback):
    """What sb3-contrib logs of each step of its trust region."""

    def __init__(self) -> None:
        super().__init__()
        self.kls: list[float] = []
        self.accepted: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.take()

    def take(self) -> None:
        """Of the update before; there is none before the first rollout."""
        logged = self.model.logger.name_to_value
        if self.model._n_updates > len(self.kls):
            self.kls.append(float(logged["train/kl_divergence_loss"]))
            self.accepted.append(float(logged["train/is_line_search_success"]))

    def found(self, bound: float) -> dict[str, float]:
        return {
            "steps": len(self.kls),
            "rejected": sum(not accepted for accepted in self.accepted),
            "beyond": sum(kl > bound for kl in self.kls),
            "largest": max(self.kls),
        }


def new_ppo(given: dict, envs: VecEnv) -> PPO:
    rate = given["learning_rate"]
    return PPO(
        "MlpPolicy",
        envs,
        learning_rate=(lambda left: left * rate) if given["schedule"] == "linear" else rate,
        n_steps=given["steps_per_env"],
        batch_size=given["minibatch"],
        n_epochs=given["epochs"],
        gamma=given["gamma"],
        gae_lambda=given["lam"],
        ent_coef=given["entropy"],
        seed=given["seed"],
        device="cpu",
    )


def new_trpo(given: dict, envs: VecEnv) -> TRPO:
    """The critic's updates are those of rl-baselines3-zoo: epochs over minibatches, which oneloop has not."""
    region = given["region"]
    batch_size, epochs = CRITIC.get(given["env"], (128, 10))
    return TRPO(
        "MlpPolicy",
        envs,
        learning_rate=given["learning_rate"],
        n_steps=given["steps_per_env"],
        gamma=given["gamma"],
        gae_lambda=given["lam"],
        target_kl=region["max_kl"],
        cg_max_steps=region["cg_iterations"],
        cg_damping=region["damping"],
        line_search_max_iter=region["backtracks"] + 1,
        line_search_shrinking_factor=region["shrink"],
        batch_size=batch_size,
        n_critic_updates=epochs,
        seed=given["seed"],
        device="cpu",
    )


def main(text: str) -> None:
    given = json.loads(text)
    torch.set_num_threads(1)
    seed, normal = given["seed"], given["normalize"]
    envs = make_vec_env(given["env"], n_envs=given["envs"], seed=seed)
    if normal:
        envs = VecNormalize(
            envs, norm_obs="observations" in normal, norm_reward="rewards" in normal, gamma=given["gamma"]
        )
    bounded = "region" in given
    model = new_trpo(given, envs) if bounded else new_ppo(given, envs)
    region = Region()
    wall, used = perf_counter(), process_time()
    model.learn(given["steps"] * given["envs"] * given["steps_per_env"], callback=region if bounded else None)
    wall, used = perf_counter() - wall, process_time() - used
    held_out = make_vec_env(given["env"], n_envs=10, seed=seed + 10_000)
    if normal:
        held_out = VecNormalize(held_out, training=False, norm_obs="observations" in normal, norm_reward=False)
        held_out.obs_rms = envs.obs_rms
    found: dict = {"wall": wall, "cpu": used}
    if bounded:
        region.take()
        found["region"] = region.found(given["region"]["max_kl"])
    for name, sampled in (("greedy", False), ("sampled", True)):
        returns, _ = evaluate_policy(model, held_out, EPISODES, deterministic=not sampled, return_episode_rewards=True)
        found[name] = float(np.mean(returns))
    names = ("stable-baselines3", "sb3-contrib", "gymnasium", "torch", "numpy")
    print(json.dumps(found | {"versions": {name: version(name) for name in names}}))


if __name__ == "__main__":
    main(sys.argv[1])
