"""Settings that do not go together, each with the fix: how models are shared out, what samples, what is trained."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from oneloop.errors import ConfigError

if TYPE_CHECKING:  # it asks this module
    from oneloop.config import Run

MAX_TURNS = 8
"""Of the model in an episode, where nobody says."""


def check_combinations(run: Run) -> None:
    """Raises: ConfigError."""
    _check_shared(run)
    _check_engine(run)
    _check_vllm(run)
    _check_agent(run)
    _check_environment(run)


ONLY_AGENTS = ("envs", "steps_per_env", "normalize", "hidden")
"""Settings that mean something with --env alone."""
OF_AGENTS = frozenset({
    "algorithm", "env", *ONLY_AGENTS, "out", "steps", "resume", "accept_loss", "overwrite", "minibatch", "epochs",
    "max_tokens", "learning_rate", "critic_learning_rate", "warmup", "schedule", "weight_decay", "max_grad_norm", "set",
    "seed", "save_every", "keep_checkpoints", "keep_weights", "eval_every", "eval_size", "keep_best", "keep_best_by",
    "report_to",
})  # fmt: skip
"""Settings that mean something with --env."""


def _check_agent(run: Run) -> None:
    """That no setting of one world is given to the other, where nobody would read it."""
    for field in fields(run):
        value, name = getattr(run, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if run.env and field.name not in OF_AGENTS:
            raise ConfigError(
                f"--{name} is for language models, and --env {run.env} trains an agent, which has none. "
                f"Fix: leave --{name} out, or --env"
            )
        if not run.env and field.name in ONLY_AGENTS:
            raise ConfigError(f"--{name} is for agents. Fix: --env CartPole-v1, or leave it out")
    if not run.hidden or min(run.hidden) < 1:
        raise ConfigError(f"--hidden {' '.join(map(str, run.hidden))}: wanted sizes of layers, such as --hidden 64 64")


def check_turns(environment: str, turns: int, tokens: int) -> None:
    """Raises: ConfigError for budgets of episodes that are none, or that nothing would heed."""
    if tokens < 0:
        raise ConfigError(f"--max-episode-tokens is {tokens}; wanted a number of tokens, or 0 for the model's context")
    if environment:
        return
    for flag, value, unset in (("--max-turns", turns, MAX_TURNS), ("--max-episode-tokens", tokens, 0)):
        if value != unset:
            raise ConfigError(
                f"{flag} {value} without --environment: a completion is one turn, which --max-new-tokens bounds. "
                "Fix: leave it out, or name the --environment"
            )


def _check_environment(run: Run) -> None:
    check_turns(run.environment, run.max_turns, run.max_episode_tokens)
    if not run.environment:
        return
    asked = f"--environment {run.environment}"
    if run.staleness and run.engine != "builtin":
        raise ConfigError(
            f"{asked} with --staleness {run.staleness} and --engine {run.engine}: an episode's turns are begun beside "
            "the training, and a server may be asked only where weights are sent and ranks meet. "
            "Fix: --staleness 0, or --engine builtin"
        )
    if run.in_flight == "continue":
        raise ConfigError(
            f"{asked} with --in-flight continue: when an environment answers would decide which weights draw the next "
            "turn. Fix: --in-flight finish"
        )


def _check_shared(run: Run) -> None:
    if run.shard == "none":
        if run.cpu_offload:
            raise ConfigError("--cpu-offload without --shard: there are no shares to move. Fix: --shard full")
        return
    if run.compile:
        raise ConfigError(
            f"--compile with --shard {run.shard}: compiled layers have not been tried on shares of a model. "
            "Fix: leave --compile out"
        )
    if run.offload_idle:
        raise ConfigError(
            f"--offload-idle with --shard {run.shard}: what ranks share out is not moved model by model. "
            "Fix: --cpu-offload instead"
        )
    if run.optimizer != "adamw":
        raise ConfigError(
            f"--optimizer {run.optimizer} with --shard {run.shard}: its state is of whole parameters. "
            "Fix: --optimizer adamw, whose moments the ranks share out"
        )


def _check_engine(run: Run) -> None:
    if run.engine not in ("builtin", "vllm") and not run.engine.startswith(("http://", "https://")):
        raise ConfigError(f"--engine {run.engine}: wanted builtin, vllm or http://HOST:PORT")
    if run.in_flight == "continue" and not run.staleness:
        raise ConfigError("--in-flight continue: with --staleness 0 it meets no update. Fix: --staleness 1")
    if run.replay and run.engine != "builtin":
        raise ConfigError(
            f"--replay {run.replay} with --engine {run.engine}: after how many tokens an update meets its completions "
            "is the server's to say. Fix: leave it out, or --engine builtin"
        )
    if run.replay and run.in_flight != "continue":
        raise ConfigError(f"--replay {run.replay}: --in-flight finish comes out the same without. Fix: leave it out")


def _check_vllm(run: Run) -> None:
    if run.vllm_python and run.engine != "vllm":
        raise ConfigError(f"--vllm-python {run.vllm_python} with --engine {run.engine}. Fix: --engine vllm")
    if not run.vllm_devices:
        return
    asked = f"--vllm-devices {' '.join(map(str, run.vllm_devices))}"
    if run.engine != "vllm":
        raise ConfigError(f"{asked} with --engine {run.engine}. Fix: --engine vllm, or leave it out")
    if run.device == "cpu":
        raise ConfigError(f"{asked} with --device cpu: vLLM for a CPU has no GPUs. Fix: leave it out, or --device cuda")
    if len(set(run.vllm_devices)) < len(run.vllm_devices):
        raise ConfigError(f"{asked} names a GPU twice. Fix: each once")
