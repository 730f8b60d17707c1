"""From a `Run` to the parts that `train` takes. Everything that can be wrong is found here, before step 0."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oneloop.algorithms import Need, PolicyGradient, Preference
from oneloop.batch import Batch
from oneloop.config import Run
from oneloop.errors import ConfigError
from oneloop.experience.ahead import Ahead, InTurn
from oneloop.experience.demonstrations import Demonstrations, demonstration_batch
from oneloop.experience.evaluation import Every, Generation, generation_scalars, loss_scalars
from oneloop.experience.pairs import Pair, Pairs, Reference, pair_batch, with_reference
from oneloop.experience.ratings import Ratings, rated_batch
from oneloop.experience.rollouts import Rollouts
from oneloop.experience.scoring import Phase, silent, unwatched
from oneloop.experience.unjudged import unjudged
from oneloop.model.chat import templated
from oneloop.model.idle import Guest
from oneloop.model.learner import Critic, Learner
from oneloop.model.load import load_critic, load_policy, load_reward_model, load_tokenizer
from oneloop.model.lora import counts
from oneloop.model.reward import LearnedReward
from oneloop.model.save import separate_critic, shared_critic
from oneloop.model.sound import check_vocabulary
from oneloop.model.text import Text, end_ids, ignored_sampling, name_ends
from oneloop.objective.preference import RewardHead
from oneloop.parallel.fsdp import Copied, Sharding
from oneloop.parallel.world import check_replicas
from oneloop.ports import Experience, Measure, Recorder, SingleProcess, World
from oneloop.recipes import items
from oneloop.recipes.device import device_notes, device_of, offloads, sharding_of
from oneloop.recipes.inputs import Inputs
from oneloop.recipes.meter import settle_malloc
from oneloop.recipes.models import compiler_of, dtype_of, frozen, recompute_of, trained
from oneloop.recipes.optimization import optimization
from oneloop.recipes.parts import Parts
from oneloop.recipes.playing import draw_of, play_of, scorer_of, shortest, slots_note, spoken
from oneloop.recipes.reference_cache import Kept
from oneloop.recipes.region import bounded, check_second_derivative
from oneloop.recipes.resolve import Algorithm, ReferenceFrom, entropy_of, reference_from, scores
from oneloop.recipes.sampler import AnyEngine, engine_of
from oneloop.recipes.stored import Stored
from oneloop.rewards import NamedReward
from oneloop.rollout.engine import Engine
from oneloop.rollout.vllm.engine import VllmEngine
from oneloop.types import Sampling


def assemble(
    run: Run,
    algorithm: Algorithm,
    inputs: Inputs,
    recorder: Recorder,
    checkpoint: Path | None = None,
    say: Callable[[str], None] = silent,
    phase: Phase = unwatched,
    world: World = SingleProcess(),  # noqa: B008
) -> Parts:
    """Load exactly the models that the algorithm needs, from `checkpoint` where one is given.

    Args:
        say: told what happens while a step takes long.
        phase: told what a step that is sampled waits for.
        world: the ranks of the run, each of which has all models.
    """
    device = device_of(run)
    tokenizer = templated(load_tokenizer(run.model), run.chat_template, run.chat_template_kwargs)
    tokenizer = spoken(tokenizer, run.data, played=inputs.stage is not None)
    for rows in (inputs.rows, inputs.eval_rows or ()):
        items.check_template(rows, inputs.kind, tokenizer)
    if run.teacher:
        same_vocabulary("--teacher", run.teacher, tokenizer, run)
    load = load_reward_model if scores(algorithm) else load_policy
    policy = trained(run, partial(load, seed=run.seed), checkpoint and checkpoint / "policy", device)
    check_vocabulary(policy, tokenizer, run.model)
    check_replicas(world, policy.parameters())
    text = Text(tokenizer, end_ids(policy, tokenizer))
    if tokenizer.chat_template is not None:
        name_ends(policy, text.end_ids)
    refers = reference_from(run, algorithm)
    begin = perf_counter()
    if run.compile:
        say("compiling the layers, which takes seconds to minutes")
    sharding = sharding_of(run, device, world)
    copies = sharding and inputs.kind == "prompts" and run.engine == "builtin"
    copied = Copied(policy, dtype_of(run)) if copies else None
    learner = Learner(
        policy,
        optimization=optimization(run, algorithm, run.prompts_per_step),
        reference=frozen(run, load_policy(run.teacher or run.model, seed=run.seed)) if refers == "model" else None,
        critic=_critic(run, policy, algorithm.needs, checkpoint),
        temperature=run.temperature if inputs.kind == "prompts" else 1.0,
        max_tokens=run.max_tokens,
        dtype=dtype_of(run),
        entropy=entropy_of(run, algorithm),
        recompute=recompute_of(run, policy),
        compiler=compiler_of(run, policy),
        offload_idle=offloads(run),
        shard=sharding,
        world=world,
        natural=bounded(algorithm),
        told=say,
    )
    check_second_derivative(algorithm, policy)
    compiling = f"--compile: layers tried out and compiled in {perf_counter() - begin:.0f} s" if run.compile else ""
    if run.device == "cpu":
        largest = max(parameter.nbytes for parameter in policy.parameters())
        settle_malloc(largest, sparing=run.gradient_checkpointing)
    reference = _passing_reference(run, learner, checkpoint, sharding, world) if refers == "start" else None
    builder = _Builder(run, algorithm, inputs, recorder, text, learner, copied, device, say, phase, world)
    experience = builder.experience(reference)
    measures = builder.measures(reference)
    if isinstance(reference, Kept):
        builder.notes.append(str(reference))
    engine_note = builder.engine.note if inputs.kind == "prompts" else ""
    notes = [*inputs.notes, *builder.notes, *text.notes, learner.note, compiling, engine_note, *device_notes(run)]
    if run.lora:
        notes.append(_lora_note(run, policy, refers))
    if ignored := ignored_sampling(policy):
        notes.append(f"generation_config.json is read for end tokens only; ignored: {dict(ignored)}")
    engine = builder.engine if inputs.kind == "prompts" else None
    return Parts(text, learner, experience, engine, measures, builder.counts(), tuple(note for note in notes if note))


def _lora_note(run: Run, policy: PreTrainedModel, refers: ReferenceFrom) -> str:
    trained, all_of_them = counts(policy)
    reference = "; the reference is the policy with its adapters off" if refers == "adapters off" else ""
    return (
        f"LoRA: rank {run.lora}, alpha {run.lora_alpha:g}; {trained:,} of {all_of_them:,} parameters train{reference}"
    )


def same_vocabulary(flag: str, source: str, tokenizer: PreTrainedTokenizerBase, run: Run) -> None:
    if load_tokenizer(source).get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"{flag} {source} has another vocabulary than --model {run.model}, so that ids mean other tokens. "
            "Fix: a model of the same family"
        )


def _passing_reference(
    run: Run, learner: Learner, checkpoint: Path | None, sharding: Sharding | None, world: World
) -> Reference:
    """π_ref for as long as somebody holds what this returns: the policy itself before its first update."""
    if run.lora:
        return _perhaps_kept(run, learner.reference, learner, world)
    if checkpoint is not None:
        start: PreTrainedModel = load_policy(run.model, seed=run.seed).to(learner.device)  # pyright: ignore[reportArgumentType]
        learner = Learner(
            start,
            optimization=learner.optimization,
            max_tokens=run.max_tokens,
            dtype=dtype_of(run),
            entropy="none",
            compiler=compiler_of(run, start),
            shard=sharding,
            world=world,
        )

    @torch.no_grad()
    def logprobs(batch: Batch) -> Float[Tensor, "B T"]:
        return learner.policy(batch).logprobs

    return _perhaps_kept(run, logprobs, learner, world)


def _perhaps_kept(run: Run, reference: Reference, learner: Learner, world: World) -> Reference:
    return Kept(reference, learner, Path(run.reference_cache), world) if run.reference_cache else reference


def _critic(run: Run, policy: PreTrainedModel, needs: frozenset[Need], checkpoint: Path | None) -> Critic | None:
    if "values" not in needs:
        return None
    saved = checkpoint and checkpoint / "critic"
    if run.critic == "separate":
        return separate_critic(trained(run, load_critic, saved, policy.device))
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
        copied: Copied | None,
        device: torch.device,
        say: Callable[[str], None],
        phase: Phase,
        world: World,
    ) -> None:
        self.say, self.phase, self.world = say, phase, world
        self.run, self.algorithm, self.inputs, self.recorder = run, algorithm, inputs, recorder
        self.text, self.learner, self.copied, self.device = text, learner, copied, device
        self.context = getattr(learner.model.config, "max_position_embeddings", None)
        self._most = shortest(self.context, run.max_episode_tokens)
        self.notes: list[str] = []
        self.long_skipped = self.long_truncated = 0

    @cached_property
    def engine(self) -> AnyEngine:
        def prompt() -> Sequence[int]:
            row = self.inputs.rows[0]
            return self.text.prompt(row["prompt"], row.get("tools"))[0]

        def told(what: str) -> None:
            fix = "look at vllm.log in the run folder; completions are drawn again with the same seeds"
            # weights of version k are those that step k - 1 left: what fails until the next one begins is of that step
            self.recorder.event(max(self.engine.version - 1, 0), "A_ENGINE", f"{what}. It is started again", fix)

        return engine_of(self.run, self.learner, self.copied, self.text, prompt, self.say, told, self.world)

    def experience(self, reference: Reference | None) -> Experience:
        run, rows = self.run, self.inputs.rows
        fixed = {"per_step": run.prompts_per_step, "seed": run.seed, "device": self.device}
        if self.inputs.kind == "demonstrations":
            return Demonstrations(
                self._kept(items.demonstrations(rows, self.text, self.context, run.long_prompts)), **fixed
            )
        if self.inputs.kind == "unpaired":
            return Ratings(self._kept(items.unpaired(rows, self.text, self.context, run.long_prompts)), **fixed)
        if self.inputs.kind == "preferences":
            pairs = self._kept(items.pairs(rows, self.text, self.context, run.long_prompts, margins=self._margins))
            self._note_margins(pairs)
            return Pairs(with_reference(pairs, reference, steps=run.steps, **fixed) if reference else pairs, **fixed)
        rewards, play = self._rewards(), play_of(run, self.inputs.stage, run.reward_weights)
        scorer = scorer_of(rewards, run.on_reward_error, play, run.steps) if rewards or play else unjudged
        mine = -(-run.prompts_per_step // run.ranks) * run.group_size
        self.notes.append(slots_note(self.engine, self.context, play, mine))
        rollouts = Rollouts(
            engine=self.engine,
            prompts=self._kept(items.prompts(rows, self.text, self._most, run.max_new_tokens, run.long_prompts)),
            draw=draw_of(self.engine, self.text, self.context, play),
            scorer=InTurn(scorer) if run.staleness else scorer,
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
            say=self.say,
            phase=self.phase,
            device=self.device,
            world=self.world,
        )
        if isinstance(self.engine, Engine | VllmEngine):
            return rollouts
        return Ahead(rollouts, self.engine, staleness=run.staleness, last=run.steps - 1, world=self.world)

    def _rewards(self) -> tuple[NamedReward, ...]:
        if not self.run.reward_model:
            return self.inputs.rewards
        source = self.run.reward_model
        same_vocabulary("--reward-model", source, self.text.tokenizer, self.run)
        model = frozen(self.run, load_reward_model(source))
        here = Guest(model.to, self.device) if offloads(self.run) else nullcontext()  # pyright: ignore[reportArgumentType]
        weight = self.run.reward_weights[-1] if self.run.reward_weights else 1.0
        learned = NamedReward(
            name="reward_model",
            function=LearnedReward(model, max_tokens=self.run.max_tokens, dtype=dtype_of(self.run), here=here),
            weight=weight,
        )
        return (*self.inputs.rewards, learned)

    def measures(self, reference: Reference | None) -> tuple[Every, ...]:
        rows, run = self.inputs.eval_rows, self.run
        if rows is None:
            return ()
        if self.inputs.kind == "prompts":
            play = play_of(run, self.inputs.stage)
            generation = Generation(
                draw=draw_of(self.engine, self.text, self.context, play),
                prompts=self._kept(items.prompts(rows, self.text, self._most, run.eval_limit, run.long_prompts)),
                scorer=scorer_of(self.inputs.eval_rewards, run.on_reward_error, play, run.steps),
                sampling=Sampling(
                    max_new_tokens=run.eval_limit,
                    temperature=run.eval_temperature,
                    top_k=run.eval_top_k,
                    top_p=run.eval_top_p,
                ),
                samples=run.eval_samples,
                seed=run.seed,
                say=self.say,
                world=self.world,
            )
            return (Every(run.eval_every, run.steps, lambda: generation_scalars(generation())),)
        if self.inputs.kind == "demonstrations":
            shown = self._kept(items.demonstrations(rows, self.text, self.context, run.long_prompts))
            batch = demonstration_batch(shown, self.device)
        elif self.inputs.kind == "unpaired":
            batch = rated_batch(
                self._kept(items.unpaired(rows, self.text, self.context, run.long_prompts)), self.device
            )
        else:
            pairs = self._kept(items.pairs(rows, self.text, self.context, run.long_prompts, margins=self._margins))
            batch = pair_batch(pairs, self.device)
            batch = replace(batch, ref_logprobs=reference(batch)) if reference else batch
        return (
            Every(
                run.eval_every,
                run.steps,
                lambda: loss_scalars(self.algorithm, self.learner, batch),
            ),
        )

    def _kept(self, fitted: tuple[Stored[items.Item], items.TooLong | None]) -> Stored[items.Item]:
        kept, long = fitted
        if long is not None:
            self.notes.append(str(long))
            self.long_skipped += long.skipped.count
            self.long_truncated += long.truncated.count
        return kept

    def counts(self) -> tuple[Measure, ...]:
        """Rows of the data that were left out or cut, with every step, where the run may do that."""
        run, found = self.run, {}
        if run.on_bad_row == "skip":
            found["data/skipped_rows"] = float(self.inputs.skipped)
        if run.long_prompts != "error":
            found |= {"data/long_skipped": float(self.long_skipped), "data/long_cut": float(self.long_truncated)}
        return (lambda step: found,) if found else ()

    @property
    def _margins(self) -> bool:
        """Whether the data's margins are meant for this method: they are differences of a reward model's scores."""
        return isinstance(self.algorithm, Preference) and isinstance(self.algorithm.reward, RewardHead)

    def _note_margins(self, pairs: Sequence[Pair]) -> None:
        margins = array("d", (pair.margin for pair in pairs)) if self._margins else ()
        if any(margins):
            mean = fmean(margins)
            self.notes.append(f"column margin: the chosen answer's score must lead by it (mean {mean:.3g})")
        elif not self._margins and "margin" in self.inputs.data.columns | self.inputs.data.partial:
            self.notes.append(f"column margin is not read: {self.algorithm.name} trains no reward model")
