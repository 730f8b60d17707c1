"""What a `Run` decides before anything is read or loaded: its algorithm, and which models that one needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from oneloop.algorithms import PolicyGradient, Preference
from oneloop.config import Run
from oneloop.data import Kind
from oneloop.errors import ConfigError
from oneloop.objective.aggregate import FixedLength
from oneloop.objective.logprobs import Entropy
from oneloop.objective.shaping import OverlongPenalty
from oneloop.recipes.overrides import named_algorithm, overridden

Algorithm = PolicyGradient | Preference


def resolved(run: Run) -> Algorithm:
    """The algorithm of a run: the named value, fitted to the length limit, with the run's epochs and changes."""
    algorithm = replace(named_algorithm(run.algorithm), epochs=run.epochs)
    if isinstance(algorithm, PolicyGradient):
        algorithm = _fitted(algorithm, run.max_new_tokens)
    algorithm = overridden(algorithm, run.set)
    compares = isinstance(algorithm, PolicyGradient) and algorithm.advantage.compares
    if compares and run.group_size < 2:
        raise ConfigError(
            f"--group-size {run.group_size}: {run.algorithm} compares the answers to one prompt, and in a group of "
            "one every advantage is 0. Fix: --group-size 8"
        )
    if isinstance(algorithm, Preference) and run.group_size != 2:
        raise ConfigError(f"--group-size {run.group_size}: {run.algorithm} learns from pairs. Fix: --group-size 2")
    return algorithm


def _fitted(algorithm: PolicyGradient, max_new_tokens: int) -> PolicyGradient:
    """Lengths that the paper states for its own budget, at the same share of this run's: else they never bite."""
    if isinstance(algorithm.shape, OverlongPenalty):
        share = algorithm.shape.margin / algorithm.shape.max_length
        margin = max(round(max_new_tokens * share), 1)
        algorithm = replace(algorithm, shape=OverlongPenalty(max_length=max_new_tokens, margin=margin))
    if isinstance(algorithm.aggregate, FixedLength):
        algorithm = replace(algorithm, aggregate=FixedLength(tokens=max_new_tokens))
    return algorithm


def kind_of(algorithm: Algorithm) -> Kind:
    """What an algorithm learns from."""
    if isinstance(algorithm, Preference):
        return "preferences"
    return "demonstrations" if algorithm.name == "sft" else "prompts"


def models_in_memory(run: Run, algorithm: Algorithm) -> list[str]:
    """Every model that the run holds while it trains."""
    critic = [f"{run.critic} critic"] * ("values" in algorithm.needs)
    reference = ["reference"] * (reference_from(run, algorithm) == "model")
    reward = ["reward model"] * bool(run.reward_model)
    return ["policy", *reference, *critic, *reward]


ReferenceFrom = Literal["nobody", "start", "adapters off", "model"]


def reference_from(run: Run, algorithm: Algorithm) -> ReferenceFrom:
    """Who answers for π_ref.

    "start": the policy itself, about all data, before step 0: pairs stand fixed, and so does what it says of them.
    "adapters off": the policy without its adapters. "model": one of its own, which stays in memory.
    """
    if "reference" not in algorithm.needs:
        return "nobody"
    if kind_of(algorithm) == "preferences":
        return "start"
    return "adapters off" if run.lora else "model"


def entropy_of(run: Run, algorithm: Algorithm) -> Entropy:
    """Only what the loss or the log asks for."""
    if isinstance(algorithm, PolicyGradient) and algorithm.entropy:
        return "gradient"
    return "value" if run.log_entropy and kind_of(algorithm) == "prompts" else "none"
