"""From a `Run` with --env to the parts that `train` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from oneloop.algorithms import PolicyGradient
from oneloop.classic.environments import LONGEST, Environments, endless
from oneloop.classic.evaluation import evaluation_scalars
from oneloop.classic.experience import Interaction
from oneloop.classic.learner import AgentLearner
from oneloop.classic.normalize import Observations, Rewards
from oneloop.classic.save import Player, load_weights, new_agent, save_critic, save_player
from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.experience.evaluation import Every
from oneloop.ports import Measure
from oneloop.recipes.optimization import optimization
from oneloop.recipes.region import bounded
from oneloop.recipes.resolve import Algorithm
from oneloop.seeds import named_seed


@dataclass(frozen=True)
class AgentParts:
    """In the place of `oneloop.recipes.build.Parts`."""

    learner: AgentLearner
    experience: Interaction
    player: Player
    hidden: tuple[int, ...]
    environments: Environments
    measures: tuple[Every, ...]
    notes: tuple[str, ...]
    counts: tuple[Measure, ...] = ()

    @property
    def lost(self) -> tuple[str, ...]:
        """What could not be put back on resume."""
        return tuple(self.experience.lost)

    def close(self) -> None:
        self.environments.close()

    def decode(self, ids: Sequence[int]) -> str:
        """Actions, where a batch is written down that no step could be made of."""
        return " ".join(map(str, ids))

    def write_checkpoint(self, folder: Path) -> None:
        self.learner.check_weights()
        save_player(folder / "policy", self.player, self.hidden)
        if self.learner.model.critic is not None:
            save_critic(folder / "critic", self.learner.model.critic)

    def write_model(self, folder: Path) -> None:
        self.learner.check_weights()
        save_player(folder, self.player, self.hidden)

    def results(self) -> Mapping[str, Callable[[Path], None]]:
        return {"final": self.write_model}


def assemble_agent(run: Run, algorithm: Algorithm, checkpoint: Path | None = None) -> AgentParts:
    """Make the environments and the networks; from `checkpoint` where one is given."""
    value = check_agent_algorithm(run, algorithm)
    environments = Environments(run.env, run.envs, run.seed, "training")
    spaces = environments.spaces
    agent = new_agent(spaces, run.hidden, critic=value.critic is not None, seed=named_seed(run.seed, "agent"))
    # π_ref is the policy at its start, which the seed gives again
    learner = AgentLearner(
        agent,
        optimization=optimization(run, value, run.envs * run.steps_per_env),
        reference="reference" in value.needs,
        natural=bounded(value),
    )
    if checkpoint is not None:
        load_weights(agent, checkpoint / "policy", checkpoint / "critic")
    normalized = Observations(spaces.features, "observations" in run.normalize)
    experience = Interaction(
        environments,
        agent,
        steps=run.steps_per_env,
        seed=run.seed,
        normalized=normalized,
        scaled=Rewards(run.envs, getattr(value.advantage, "gamma", 1.0), "rewards" in run.normalize),
        whole=value.critic is None,
    )
    player = Player(run.env, agent, spaces, normalized)
    measure = Every(run.eval_every, run.steps, partial(evaluation_scalars, player, run.eval_size, run.seed))
    return AgentParts(learner, experience, player, run.hidden, environments, (measure,), (_note(run, learner),))


def check_agent_algorithm(run: Run, algorithm: Algorithm) -> PolicyGradient:
    """Raises: ConfigError for what an agent's episodes do not have: several answers to one prompt, and a length."""
    if not isinstance(algorithm, PolicyGradient):
        raise ConfigError(f"--env {run.env}: {algorithm.name} learns from fixed data. Fix: oneloop train ppo")
    if algorithm.advantage.compares or algorithm.keep is not None:
        raise ConfigError(
            f"--env {run.env}: {algorithm.name} compares several answers to one prompt, and episodes have none in "
            f"common. Fix: oneloop train ppo --env {run.env}"
        )
    if algorithm.shape is not None or algorithm.drop is not None:
        raise ConfigError(
            f"--env {run.env}: {algorithm.name} judges completions by their length (shape, drop), and a row here is a "
            "piece of an episode. Fix: --set shape=none drop=none"
        )
    if algorithm.critic is None and algorithm.region is not None:
        raise ConfigError(
            f"--env {run.env}: {algorithm.name} has a trust region and no critic, which was not tried with agents. "
            f"Fix: oneloop train trpo --env {run.env}"
        )
    if algorithm.critic is None and run.minibatch and run.schedule != "constant":
        raise ConfigError(
            f"--minibatch {run.minibatch} --schedule {run.schedule}: {algorithm.name} plays episodes to their end, so "
            "that nobody knows how many updates there will be. Fix: --minibatch 0, or --schedule constant"
        )
    return algorithm


def _note(run: Run, learner: AgentLearner) -> str:
    sizes = {name: flat.numel() for name, flat in learner.named_parameters().items()}
    seen = f"; normalised: {', '.join(run.normalize)}" if run.normalize else ""
    if endless(run.env):
        seen += f"; it has no time limit: episodes are cut after {LONGEST:,} steps"
    return f"{run.env}: {', '.join(f'{name} of {size:,} parameters' for name, size in sizes.items())}{seen}"


def agent_arithmetic(run: Run, algorithm: Algorithm) -> list[str]:
    """The batch in words."""
    whole = run.envs * run.steps_per_env
    updates = -(-whole // run.groups_per_update)
    epochs = f"{algorithm.epochs} epoch{'s' if algorithm.epochs > 1 else ''}"
    plural, rate = "s" if updates > 1 else "", f"learning rate {run.learning_rate:g} ({run.schedule})"
    if bounded(algorithm):
        rate = f"learning rate of the critic {run.critic_learning_rate:g} ({run.schedule})"
    return [
        f"{algorithm.name}: {run.envs} environments × {run.steps_per_env} = {whole:,} environment steps a step → "
        f"{updates} optimizer step{plural} of {min(run.groups_per_update, whole)} × {epochs}; {run.steps} steps, "
        f"{run.steps * whole:,} environment steps",
        f"settings of {run.env}: {rate}, {' '.join(run.set) or 'no --set'}",
    ]
