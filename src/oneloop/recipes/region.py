"""What a trust region asks of a run: settings that it cannot follow, and a model that can be differentiated twice."""

from __future__ import annotations

from torch import nn

from oneloop.algorithms import PolicyGradient
from oneloop.config import Run, default_run
from oneloop.errors import ConfigError
from oneloop.recipes.explain import Algorithm

MOST_PARAMETERS = 1_000_000
"""Of a policy: a product with the Fisher holds the graph of a backward pass over logits of the whole vocabulary."""


def bounded(algorithm: Algorithm) -> bool:
    """Whether a trust region moves the policy."""
    return isinstance(algorithm, PolicyGradient) and algorithm.region is not None


def critic_steps(algorithm: Algorithm) -> int:
    """Optimizer steps on a minibatch."""
    if isinstance(algorithm, PolicyGradient) and algorithm.region is not None and algorithm.critic is not None:
        return algorithm.region.critic_steps
    return 1


def check_region(run: Run, algorithm: Algorithm) -> None:
    """Raises: ConfigError for a setting that a trust region cannot follow, or would not heed."""
    if not bounded(algorithm):
        return
    unsupported = {
        f"--shard {run.shard}": (run.shard != "none", "--shard none"),
        f"--lora {run.lora}": (run.lora > 0, "--lora 0"),
        f"--dtype {run.dtype}": (run.dtype != "float32", "--dtype float32"),
        "--compile": (run.compile, "leave it out"),
    }
    for flag, (asked, fix) in unsupported.items():
        if asked:
            raise ConfigError(
                f"{flag}: {algorithm.name} differentiates the policy twice, which has not been tried with it. "
                f"Fix: {fix}, or ppo"
            )
    # a value of one's own has its name's defaults, or with --env the environment's
    if run.learning_rate not in {default_run(run.algorithm, env).learning_rate for env in {"", run.env}}:
        raise ConfigError(
            f"--learning-rate {run.learning_rate:g}: {algorithm.name} has none for the policy, whose steps end at the "
            "edge of the trust region. Fix: --set region.max_kl=0.02 for longer ones; the critic's is "
            "--critic-learning-rate"
        )


def check_second_derivative(algorithm: Algorithm, policy: nn.Module) -> None:
    """Raises: ConfigError for a policy that is too large."""
    count = sum(parameter.numel() for parameter in policy.parameters())
    if bounded(algorithm) and count > MOST_PARAMETERS:
        raise ConfigError(
            f"{algorithm.name} with a policy of {count:,} parameters: its products with the Fisher are made for at "
            f"most {MOST_PARAMETERS:,}. Fix: --model scratch:tiny, or ppo, which replaced them by a clip"
        )
