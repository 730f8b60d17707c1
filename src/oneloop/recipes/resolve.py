"""What a `Run` decides before anything is read or loaded: its algorithm, and which models that one needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from oneloop.algorithms import DAPO, DR_GRPO, PolicyGradient, Preference, Unpaired
from oneloop.config import Run
from oneloop.data import Kind
from oneloop.errors import ConfigError
from oneloop.objective.aggregate import FixedLength
from oneloop.objective.correction import TruncatedImportance
from oneloop.objective.logprobs import Entropy
from oneloop.objective.preference import RewardHead
from oneloop.objective.shaping import OverlongPenalty
from oneloop.recipes.explain import Algorithm
from oneloop.recipes.overrides import named_algorithm, overridden
from oneloop.recipes.region import check_region


def resolved(run: Run, given: Algorithm | None = None) -> Algorithm:
    """The algorithm of a run: the named or given value, fitted to the length limit, with its epochs and changes."""
    algorithm = replace(named_algorithm(run.algorithm) if given is None else given, epochs=run.epochs)
    if isinstance(algorithm, PolicyGradient):
        algorithm = _fitted(algorithm, run.longest)
        if kind_of(algorithm) == "prompts" and not run.samples_exactly:
            algorithm = _corrected(algorithm)
    algorithm = overridden(algorithm, run.set)
    compares = isinstance(algorithm, PolicyGradient) and algorithm.advantage.compares
    if compares and run.group_size < 2:
        raise ConfigError(
            f"--group-size {run.group_size}: {algorithm.name} compares the answers to one prompt, and in a group of "
            "one every advantage is 0. Fix: --group-size 8"
        )
    if isinstance(algorithm, Preference) and run.group_size != 2:
        raise ConfigError(f"--group-size {run.group_size}: {algorithm.name} learns from pairs. Fix: --group-size 2")
    if run.staleness and isinstance(algorithm, PolicyGradient) and algorithm.correction is None:
        raise ConfigError(
            f"--staleness {run.staleness} with correction=none: samples of an older policy would count as the new "
            "one's. Fix: --set correction=TruncatedImportance(2)"
        )
    _check_reference(run, algorithm)
    check_region(run, algorithm)
    return algorithm


def _check_reference(run: Run, algorithm: Algorithm) -> None:
    """That a teacher is there where one is needed, and that what was asked for is used."""
    refers = reference_from(run, algorithm)
    if algorithm.name == "distill" and not run.teacher:
        raise ConfigError("distill learns from a teacher. Fix: --teacher FOLDER, a model with the same vocabulary")
    if run.teacher and (kind_of(algorithm) != "prompts" or refers == "nobody"):
        raise ConfigError(
            f"--teacher {run.teacher}: {algorithm.name} has no KL to a teacher on samples of its own. Fix: leave it "
            "out, train distill, or --set kl=KL(0.1)"
        )
    if run.reference_cache and refers != "start":
        raise ConfigError(
            f"--reference-cache {run.reference_cache}: {algorithm.name} does not ask a reference about fixed pairs "
            "before step 0, so there is nothing to keep. Fix: leave it out"
        )


def _fitted(algorithm: PolicyGradient, longest: int) -> PolicyGradient:
    """Lengths that the paper states for its own budget, at the same share of this run's: else they never bite.

    Only the paper's own: lengths that somebody chose are kept.
    """
    if isinstance(algorithm.shape, OverlongPenalty) and algorithm.shape == DAPO.shape:
        share = algorithm.shape.margin / algorithm.shape.max_length
        margin = max(round(longest * share), 1)
        algorithm = replace(algorithm, shape=OverlongPenalty(max_length=longest, margin=margin))
    if algorithm.aggregate == DR_GRPO.aggregate:
        algorithm = replace(algorithm, aggregate=FixedLength(tokens=longest))
    return algorithm


def _corrected(algorithm: PolicyGradient) -> PolicyGradient:
    """With π_old/μ in its loss, as the sampler is not exactly the trainer; a correction of its own stays."""
    return replace(algorithm, correction=algorithm.correction or TruncatedImportance())


def sampler(run: Run) -> str:
    """What draws a run's completions, where it is not the policy's own modules in the trainer's process."""
    return "; ".join(words for words in (_engine(run), _ahead(run)) if words)


def _ahead(run: Run) -> str:
    if not run.staleness:
        return ""
    on_the_way = {
        "finish": "completions on their way at an update are finished under the old weights",
        "continue": "completions on their way at an update go on with the new weights",
    }[run.in_flight]
    return (
        f"beside the training, from weights at most {run.staleness} steps old; {on_the_way}; π_old is the trainer's at "
        "the start of the step, and π_old/μ corrects what is older"
    )


def _engine(run: Run) -> str:
    if run.engine == "builtin":
        return "a second process with a copy of the weights" if run.staleness else ""
    if run.engine == "vllm":
        return "vLLM with a copy of the weights, sent after each update; π_old/μ corrects what it rounds differently"
    return (
        f"{run.engine}: weights are sent after each update if it takes any; if not, μ is the policy that it was "
        "started with, ever staler, and π_old/μ corrects for it up to the cap"
    )


def kind_of(algorithm: Algorithm) -> Kind:
    """What an algorithm learns from."""
    if isinstance(algorithm, Preference):
        return "preferences"
    if isinstance(algorithm, Unpaired):
        return "unpaired"
    return "demonstrations" if algorithm.name == "sft" else "prompts"


def scores(algorithm: Algorithm) -> bool:
    """Whether a reward model is trained: a classifier instead of a language model."""
    return isinstance(algorithm, Preference) and isinstance(algorithm.reward, RewardHead)


def models_in_memory(run: Run, algorithm: Algorithm) -> list[str]:
    """Every model that the run holds while it trains."""
    critic = [f"{run.critic} critic"] * ("values" in algorithm.needs)
    reference = ["teacher" if run.teacher else "reference"] * (reference_from(run, algorithm) == "model")
    reward = ["reward model"] * bool(run.reward_model)
    return ["policy", *reference, *critic, *reward]


ReferenceFrom = Literal["nobody", "start", "adapters off", "model"]


def reference_from(run: Run, algorithm: Algorithm) -> ReferenceFrom:
    """Who answers for π_ref.

    "start": the policy itself, about all data, before step 0: pairs stand fixed, and so does what it says of them.
    "adapters off": the policy without its adapters. "model": one of its own, which stays in memory: the teacher, or
    what the policy started as.
    """
    if "reference" not in algorithm.needs:
        return "nobody"
    if kind_of(algorithm) == "preferences":
        return "start"
    return "adapters off" if run.lora and not run.teacher else "model"


def entropy_of(run: Run, algorithm: Algorithm) -> Entropy:
    """Only what the loss or the log asks for."""
    if isinstance(algorithm, PolicyGradient) and algorithm.entropy:
        return "gradient"
    return "value" if run.log_entropy and kind_of(algorithm) == "prompts" else "none"
