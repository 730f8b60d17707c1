"""One agent trained by Stable-Baselines3, with oneloop's settings: a JSON line. Runs in an environment of its own."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from time import perf_counter, process_time

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

EPISODES = 100


def main(text: str) -> None:
    given = json.loads(text)
    torch.set_num_threads(1)
    seed, normal = given["seed"], given["normalize"]
    envs = make_vec_env(given["env"], n_envs=given["envs"], seed=seed)
    if normal:
        envs = VecNormalize(envs, "observations" in normal, "rewards" in normal, gamma=given["gamma"])
    rate = given["learning_rate"]
    model = PPO(
        "MlpPolicy",
        envs,
        learning_rate=(lambda left: left * rate) if given["schedule"] == "linear" else rate,
        n_steps=given["steps_per_env"],
        batch_size=given["minibatch"],
        n_epochs=given["epochs"],
        gamma=given["gamma"],
        gae_lambda=given["lam"],
        ent_coef=given["entropy"],
        seed=seed,
        device="cpu",
    )
    wall, used = perf_counter(), process_time()
    model.learn(given["steps"] * given["envs"] * given["steps_per_env"])
    wall, used = perf_counter() - wall, process_time() - used
    held_out = make_vec_env(given["env"], n_envs=10, seed=seed + 10_000)
    if normal:
        held_out = VecNormalize(held_out, "observations" in normal, False, training=False)
        held_out.obs_rms = envs.obs_rms
    found = {"wall": wall, "cpu": used}
    for name, sampled in (("greedy", False), ("sampled", True)):
        returns, _ = evaluate_policy(model, held_out, EPISODES, deterministic=not sampled, return_episode_rewards=True)
        found[name] = float(np.mean(returns))
    names = ("stable-baselines3", "gymnasium", "torch", "numpy")
    print(json.dumps(found | {"versions": {name: version(name) for name in names}}))


if __name__ == "__main__":
    main(sys.argv[1])
