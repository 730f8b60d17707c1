"""From a `Run` to the parts that `train` takes. Everything that can be wrong is found here, before step 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from oneloop.algorithms import Need, PolicyGradient, Preference
from oneloop.batch import Batch
from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.experience.demonstrations import Demonstrations, demonstration_batch
from oneloop.experience.evaluation import Every, Generation, generation_scalars, loss_scalars
from oneloop.experience.pairs import Pairs, Reference, pair_batch, with_reference
from oneloop.experience.rollouts import Rollouts
from oneloop.model.learner import Critic, Learner, Optimization
from oneloop.model.load import load_critic, load_policy, load_reward_model, load_tokenizer
from oneloop.model.lora import Lora, add_adapters, check_available, counts, keep_frozen_in
from oneloop.model.reward import LearnedReward
from oneloop.model.save import separate_critic, shared_critic
from oneloop.model.text import Text, end_ids, ignored_sampling, name_ends
from oneloop.objective.aggregate import FixedLength
from oneloop.objective.logprobs import Entropy
from oneloop.objective.shaping import OverlongPenalty
from oneloop.ports import Experience, Recorder
from oneloop.recipes import data
from oneloop.recipes.meter import settle_malloc
from oneloop.recipes.overrides import named_algorithm, overridden
from oneloop.rewards import NamedReward, RewardScorer, load_reward
from oneloop.rollout.engine import Engine
from oneloop.tasks import TASKS
from oneloop.tasks.source import fingerprint, load_rows
from oneloop.types import Sampling

Rows = list[dict[str, Any]]
Algorithm = PolicyGradient | Preference


@dataclass(frozen=True)
class Inputs:
    """What a run reads from files, checked before any model is loaded."""

    kind: data.Kind
    rows: Rows
    eval_rows: Rows
    rewards: tuple[NamedReward, ...]
    eval_rewards: tuple[NamedReward, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.rows)


@dataclass(frozen=True)
class Parts:
    """What `train` takes."""

    text: Text
    learner: Learner
    experience: Experience
    engine: Engine | None
    """What samples; None where the data is fixed."""
    measures: tuple[Every, ...]
    notes: tuple[str, ...]
    """What the user should know before step 0."""


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


def lora_of(run: Run) -> Lora | None:
    return Lora(rank=run.lora, alpha=run.lora_alpha, targets=run.lora_targets) if run.lora else None


def kind_of(algorithm: Algorithm) -> data.Kind:
    """What an algorithm learns from."""
    if isinstance(algorithm, Preference):
        return "preferences"
    return "demonstrations" if algorithm.name == "sft" else "prompts"


def read_inputs(run: Run, algorithm: Algorithm) -> Inputs:
    if run.lora:
        check_available(f"--lora {run.lora}")
    kind = kind_of(algorithm)
    rows = load_rows(run.data, kind, split="train", size=run.data_size, seed=run.seed)
    source = run.eval_data or (run.data if run.data.startswith("task:") else "")
    eval_rows = load_rows(source, kind, split="test", size=run.eval_size, seed=run.seed) if source else []
    rewards: tuple[NamedReward, ...] = ()
    eval_rewards: tuple[NamedReward, ...] = ()
    if kind == "prompts":
        rewards = training_rewards(run)
        eval_rewards = task_or_named(run.eval_reward or run.reward, source or run.data) if eval_rows else ()
    elif run.reward or run.reward_model:
        raise ConfigError(f"--reward: {run.algorithm} learns from {kind} and never calls a reward. Fix: leave it out")
    return Inputs(kind, rows, eval_rows, rewards, eval_rewards)


def training_rewards(run: Run) -> tuple[NamedReward, ...]:
    """The rewards by name; the learned one is loaded with the models."""
    named = () if run.reward_model and not run.reward else task_or_named(run.reward, run.data)
    count = len(named) + bool(run.reward_model)
    if run.reward_weights and len(run.reward_weights) != count:
        raise ConfigError(f"--reward-weights has {len(run.reward_weights)} values for {count} rewards")
    weights = run.reward_weights or (1.0,) * count
    return tuple(replace(reward, weight=weight) for reward, weight in zip(named, weights, strict=False))


def task_or_named(specs: Sequence[str], source: str) -> tuple[NamedReward, ...]:
    """Reward functions by name; without any, a task's own grader."""
    if not specs and not source.startswith("task:"):
        raise ConfigError(f"--data {source} has no grader of its own. Fix: --reward file.py:function")
    named = tuple(_reward(spec) for spec in specs or (source,))
    RewardScorer(named)  # refuses two rewards of one name, before a model is loaded
    return named


def _reward(spec: str) -> NamedReward:
    if not spec.startswith("task:"):
        return load_reward(spec)
    name = spec.removeprefix("task:")
    if name not in TASKS:
        raise ConfigError(f"--reward {spec}: there is no task {name!r}; known: {', '.join(sorted(TASKS))}")
    return NamedReward(name=name, function=TASKS[name].reward)


def device_of(run: Run) -> torch.device:
    try:
        device = torch.device(run.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {run.device} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def dtype_of(run: Run) -> torch.dtype:
    if run.dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"--dtype {run.dtype}: wanted float32 or bfloat16")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[run.dtype]


def assemble(
    run: Run, algorithm: Algorithm, inputs: Inputs, recorder: Recorder, checkpoint: Path | None = None
) -> Parts:
    """Load exactly the models that the algorithm needs, from `checkpoint` where one is given."""
    device = device_of(run)
    tokenizer = load_tokenizer(run.model)
    load = load_reward_model if run.algorithm == "reward_model" else load_policy
    policy = _trained(run, partial(load, seed=run.seed), checkpoint and checkpoint / "policy", device)
    text = Text(tokenizer, end_ids(policy, tokenizer))
    if not all(isinstance(row["prompt"], str) for row in inputs.rows):
        name_ends(policy, text.end_ids)
    refers = reference_from(run, algorithm)
    learner = Learner(
        policy,
        optimization=_optimization(run, algorithm),
        reference=load_policy(run.model, seed=run.seed).to(device) if refers == "model" else None,  # pyright: ignore[reportArgumentType]
        critic=_critic(run, policy, algorithm.needs, checkpoint),
        temperature=run.temperature if inputs.kind == "prompts" else 1.0,
        max_tokens=run.max_tokens,
        dtype=dtype_of(run),
        entropy=entropy_of(run, algorithm),
    )
    if run.device == "cpu":
        settle_malloc(max(parameter.nbytes for parameter in policy.parameters()))
    reference = _passing_reference(run, learner, checkpoint) if refers == "start" else None
    builder = _Builder(run, algorithm, inputs, recorder, text, learner, device)
    experience = builder.experience(reference)
    measures = builder.measures(reference)
    notes = [*builder.notes, learner.note, builder.engine.note if inputs.kind == "prompts" else ""]
    if run.lora:
        notes.append(_lora_note(run, policy, refers))
    if ignored := ignored_sampling(policy):
        notes.append(f"generation_config.json is read for end tokens only; ignored: {dict(ignored)}")
    engine = builder.engine if inputs.kind == "prompts" else None
    return Parts(text, learner, experience, engine, measures, tuple(note for note in notes if note))


def _trained(
    run: Run, load: Callable[[str | Path], PreTrainedModel], checkpoint: Path | None, device: torch.device
) -> PreTrainedModel:
    """A model to train, as `checkpoint` has it where one is given; with LoRA, beside the run's own matrices."""
    lora = lora_of(run)
    model = load(run.model if lora or checkpoint is None else checkpoint)
    if lora is not None:
        add_adapters(model, lora, run.model, seed=run.seed, saved=checkpoint)
        keep_frozen_in(model, dtype_of(run))
    return model.to(device)  # pyright: ignore[reportArgumentType]


def _lora_note(run: Run, policy: PreTrainedModel, refers: ReferenceFrom) -> str:
    trained, all_of_them = counts(policy)
    reference = "; the reference is the policy with its adapters off" if refers == "adapters off" else ""
    return (
        f"LoRA: rank {run.lora}, alpha {run.lora_alpha:g}; {trained:,} of {all_of_them:,} parameters train{reference}"
    )


def _passing_reference(run: Run, learner: Learner, checkpoint: Path | None) -> Reference:
    """π_ref for as long as somebody holds what this returns: the policy itself before its first update."""
    if run.lora:
        return learner.reference
    if checkpoint is not None:
        start: PreTrainedModel = load_policy(run.model, seed=run.seed).to(learner.device)  # pyright: ignore[reportArgumentType]
        learner = Learner(
            start, optimization=learner.optimization, max_tokens=run.max_tokens, dtype=dtype_of(run), entropy="none"
        )

    @torch.no_grad()
    def logprobs(batch: Batch) -> Float[Tensor, "B T"]:
        return learner.policy(batch).logprobs

    return logprobs


def entropy_of(run: Run, algorithm: Algorithm) -> Entropy:
    """Only what the loss or the log asks for."""
    if isinstance(algorithm, PolicyGradient) and algorithm.entropy:
        return "gradient"
    return "value" if run.log_entropy and kind_of(algorithm) == "prompts" else "none"


def _optimization(run: Run, algorithm: Algorithm) -> Optimization:
    per_epoch = -(-run.prompts_per_step // run.groups_per_update)
    return Optimization(
        learning_rate=run.learning_rate,
        critic_learning_rate=run.critic_learning_rate,
        total_updates=run.steps * per_epoch * algorithm.epochs,
        warmup_updates=run.warmup,
        schedule=run.schedule,
        weight_decay=run.weight_decay,
        max_grad_norm=run.max_grad_norm,
    )


def _critic(run: Run, policy: PreTrainedModel, needs: frozenset[Need], checkpoint: Path | None) -> Critic | None:
    if "values" not in needs:
        return None
    saved = checkpoint and checkpoint / "critic"
    if run.critic == "separate":
        return separate_critic(_trained(run, load_critic, saved, policy.device))
    return shared_critic(policy, saved)


class _Builder:
    """Experience and measures, from the parts they share."""

    def __init__(
        self,
        run: Run,
        algorithm: Algorithm,
        inputs: Inputs,
        recorder: Recorder,
        text: Text,
        learner: Learner,
        device: torch.device,
    ) -> None:
        self.run, self.algorithm, self.inputs, self.recorder = run, algorithm, inputs, recorder
        self.text, self.learner, self.device = text, learner, device
        self.context = getattr(learner.model.config, "max_position_embeddings", None)
        self.notes: list[str] = []
        self.engine = Engine(learner.model, text.end_ids, dtype=learner.dtype)

    def experience(self, reference: Reference | None) -> Experience:
        run, rows = self.run, self.inputs.rows
        fixed = {"per_step": run.prompts_per_step, "seed": run.seed, "device": self.device}
        if self.inputs.kind == "demonstrations":
            return Demonstrations(self._kept(data.demonstrations(rows, self.text, self.context)), **fixed)
        if self.inputs.kind == "preferences":
            pairs = self._kept(data.pairs(rows, self.text, self.context))
            return Pairs(with_reference(pairs, reference, steps=run.steps, **fixed) if reference else pairs, **fixed)
        return Rollouts(
            engine=self.engine,
            prompts=self._kept(data.prompts(rows, self.text, self.context, run.max_new_tokens)),
            decode=self.text.decode,
            scorer=RewardScorer(self._rewards()),
            sampling=Sampling(
                max_new_tokens=run.max_new_tokens, temperature=run.temperature, top_k=run.top_k, top_p=run.top_p
            ),
            prompts_per_step=run.prompts_per_step,
            group_size=run.group_size,
            seed=run.seed,
            recorder=self.recorder,
            keep=self.algorithm.keep if isinstance(self.algorithm, PolicyGradient) else None,
            max_refills=run.max_refills,
            score_early=run.score_early and not run.reward_model,
            device=self.device,
        )

    def _rewards(self) -> tuple[NamedReward, ...]:
        if not self.run.reward_model:
            return self.inputs.rewards
        source = self.run.reward_model
        if load_tokenizer(source).get_vocab() != self.text.tokenizer.get_vocab():
            raise ConfigError(f"--reward-model {source} has another vocabulary than --model {self.run.model}")
        model = load_reward_model(source).to(self.device)  # pyright: ignore[reportArgumentType]
        weight = self.run.reward_weights[-1] if self.run.reward_weights else 1.0
        learned = NamedReward(
            name="reward_model", function=LearnedReward(model, max_tokens=self.run.max_tokens), weight=weight
        )
        return (*self.inputs.rewards, learned)

    def measures(self, reference: Reference | None) -> tuple[Every, ...]:
        rows, run = self.inputs.eval_rows, self.run
        if not rows:
            return ()
        if self.inputs.kind == "prompts":
            generation = Generation(
                engine=self.engine,
                prompts=self._kept(data.prompts(rows, self.text, self.context, run.max_new_tokens)),
                decode=self.text.decode,
                scorer=RewardScorer(self.inputs.eval_rewards),
                sampling=Sampling(max_new_tokens=run.max_new_tokens, temperature=run.eval_temperature),
                samples=run.eval_samples,
                seed=run.seed,
            )
            return (Every(run.eval_every, run.steps, lambda: generation_scalars(generation())),)
        if self.inputs.kind == "demonstrations":
            items = self._kept(data.demonstrations(rows, self.text, self.context))
            batch = demonstration_batch(items, self.device)
        else:
            batch = pair_batch(self._kept(data.pairs(rows, self.text, self.context)), self.device)
            batch = replace(batch, ref_logprobs=reference(batch)) if reference else batch
        return (
            Every(
                run.eval_every,
                run.steps,
                lambda: loss_scalars(self.algorithm, self.learner, batch, run.max_tokens),
            ),
        )

    def _kept(self, loaded: tuple[list[data.Item], data.Dropped | None]) -> list[data.Item]:
        items, dropped = loaded
        if dropped is not None:
            self.notes.append(str(dropped))
        return items
