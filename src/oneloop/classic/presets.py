"""Settings that are known to work, by environment: plain values, read before torch is loaded.

From the tuned settings of rl-baselines3-zoo and CleanRL's for continuous control, except where a line says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What an algorithm needs to learn an environment.

    Args:
        steps: of the loop.
        steps_per_env: environment steps in each of `envs` environments, for one step of the loop.
        minibatch: environment steps per optimizer step.
        gamma, lam, entropy: γ, λ and the entropy bonus.
        region: of a trust region, as --set has it.
    """

    steps: int = 100
    envs: int = 1
    steps_per_env: int = 2048
    minibatch: int = 64
    epochs: int = 10
    learning_rate: float = 3e-4
    schedule: Literal["constant", "linear"] = "constant"
    gamma: float = 0.99
    lam: float = 0.95
    entropy: float = 0.0
    normalize: tuple[Literal["observations", "rewards"], ...] = ()
    region: tuple[str, ...] = ()


DEFAULT = Preset()
"""Stable-Baselines3's and CleanRL's PPO, for environments that are not in the table."""
MUJOCO = Preset(schedule="linear", normalize=("observations", "rewards"))
"""CleanRL's ppo_continuous_action."""
PRESETS: dict[str, Preset] = {
    # the zoo's, with 128 steps of each environment where it has 32 and half the epochs: fewer, larger steps of the loop
    "CartPole-v1": Preset(envs=8, steps_per_env=128, minibatch=256, learning_rate=1e-3, gamma=0.98, lam=0.8),
    "Acrobot-v1": Preset(
        steps=50, envs=16, steps_per_env=256, minibatch=64, epochs=4, lam=0.94, normalize=("observations",)
    ),
    "Pendulum-v1": Preset(steps=50, envs=4, steps_per_env=1024, minibatch=64, learning_rate=1e-3, gamma=0.9),
    "LunarLander-v3": Preset(steps=60, envs=16, steps_per_env=1024, epochs=4, gamma=0.999, lam=0.98, entropy=0.01),
    "MountainCar-v0": Preset(
        steps=200, envs=16, steps_per_env=256, epochs=4, lam=0.98, normalize=("observations", "rewards")
    ),
    "InvertedPendulum-v5": MUJOCO,
    "Hopper-v5": MUJOCO,
    "HalfCheetah-v5": MUJOCO,
    "Walker2d-v5": MUJOCO,
    "Swimmer-v5": MUJOCO,
}
BOUNDED_PRESETS: dict[str, Preset] = {
    # the zoo's for sb3-contrib's TRPO; the critic's steps are of the whole batch, where it has minibatches
    "CartPole-v1": Preset(
        envs=2, steps_per_env=512, lam=0.98, region=("region.damping=0.001", "region.critic_steps=40")
    ),
    "Pendulum-v1": Preset(steps=50, envs=2, steps_per_env=1024, gamma=0.9, region=("region.critic_steps=80",)),
}
"""Of trust regions, where they differ from PPO's."""
ONE_UPDATE = ("reinforce", "reinforce_pp", "vpg", "a2c", "trpo", "npg")
"""Algorithms that make one update of each batch."""
BOUNDED = ("trpo", "npg")
"""Algorithms whose steps have no learning rate; that of their critic is sb3-contrib's."""


def settings(env: str, algorithm: str) -> dict[str, Any]:
    """Values of `Run` for an environment. Pieces of the algorithm come as --set has them."""
    preset = PRESETS.get(env, DEFAULT)
    if algorithm in BOUNDED:
        preset = BOUNDED_PRESETS.get(env, preset)
    found = {
        "steps": preset.steps,
        "envs": preset.envs,
        "steps_per_env": preset.steps_per_env,
        "minibatch": preset.minibatch,
        "epochs": preset.epochs,
        "learning_rate": preset.learning_rate,
        "critic_learning_rate": preset.learning_rate,
        "schedule": preset.schedule,
        "normalize": preset.normalize,
        "max_grad_norm": 0.5,
        "eval_size": 100,
        "set": _pieces(preset, algorithm),
    }
    if algorithm in ONE_UPDATE:
        found |= {"minibatch": 0, "epochs": 1}
    if algorithm in BOUNDED:
        del found["learning_rate"], found["schedule"]
        found["critic_learning_rate"] = 1e-3
    return found


def _pieces(preset: Preset, algorithm: str) -> tuple[str, ...]:
    gamma, lam, entropy = f"advantage.gamma={preset.gamma:g}", f"advantage.lam={preset.lam:g}", preset.entropy
    # half of a squared error, where the peers' weight is a half and their error is whole
    critic = ("kl=none", "critic.coef=1.0", "critic.clip=none", gamma)
    bonus = (f"entropy={entropy:g}",) if entropy else ()
    return {
        "ppo": (*critic, "target_kl=none", lam, *bonus),
        "a2c": (*critic, lam, *bonus),
        "trpo": (*critic, lam, *preset.region),
        "npg": (*critic, lam, *preset.region),
        "vpg": critic,
        "reinforce": (gamma,),
        "reinforce_pp": ("kl=none", gamma),
    }.get(algorithm, ())


def with_preset(env: str, algorithm: str, chosen: Sequence[str]) -> tuple[str, ...]:
    """Pieces as --set has them: the environment's, but for those that were chosen."""
    paths = {change.partition("=")[0].strip() for change in chosen}
    kept = (change for change in settings(env, algorithm)["set"] if change.partition("=")[0] not in paths)
    return (*kept, *chosen)
