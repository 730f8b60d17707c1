"""A model on held-out data: answers scored, pairs ranked, demonstrations read, every mean with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from transformers import PreTrainedModel

from oneloop.batch import Batch
from oneloop.combinations import MAX_TURNS, check_turns
from oneloop.config import Run
from oneloop.data import Kind, Loaded, Reading, columns_of, open_data
from oneloop.environments import Stage, load_environment
from oneloop.errors import ConfigError
from oneloop.experience.demonstrations import demonstration_batch
from oneloop.experience.evaluation import Generation
from oneloop.experience.pairs import pair_batch
from oneloop.experience.passes import passes
from oneloop.finite import check_finite
from oneloop.model.chat import templated
from oneloop.model.learner import Learner, Optimization
from oneloop.model.load import is_reward_model, load_policy, load_reward_model, load_tokenizer
from oneloop.model.sound import check_vocabulary
from oneloop.model.text import Text, end_ids
from oneloop.objective.preference import ImplicitReward, RewardHead
from oneloop.recipes import items
from oneloop.recipes.device import device_of
from oneloop.recipes.graders import Graders, check_columns, form_of
from oneloop.recipes.inputs import check_parts
from oneloop.recipes.measured import Difference, Measured, Score, Value, perplexity
from oneloop.recipes.models import dtype_of
from oneloop.recipes.playing import Play, draw_of, scorer_of, shortest, spoken
from oneloop.rewards import Limits, NamedReward
from oneloop.rewards.score import OnError
from oneloop.rollout.engine import Engine
from oneloop.tasks.named import is_task
from oneloop.types import Sampling, StopReason, Trajectory


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What a model is measured on, and how. Names are those of `oneloop eval`."""

    data: str
    kind: Literal["auto", "prompts", "demonstrations", "preferences"] = "auto"
    columns: tuple[str, ...] = ()
    split: str = ""
    on_bad_row: Literal["error", "skip"] = "error"
    reward: tuple[str, ...] = ()
    environment: str = ""
    max_turns: int = MAX_TURNS
    max_episode_tokens: int = 0
    reward_timeout: float = 60.0
    reward_workers: int = 1
    on_reward_error: OnError = "stop"
    reference: str = ""
    size: int = 512
    samples: int = 1
    pass_at: tuple[int, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 64
    max_tokens: int = 16384
    chat_template: str = ""
    chat_template_kwargs: tuple[str, ...] = ()
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("size", "samples", "max_tokens", "reward_workers", "max_turns"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; wanted at least 1")
        if not self.reward_timeout > 0:
            raise ConfigError(f"--reward-timeout is {self.reward_timeout}; wanted a positive number of seconds")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"--samples {self.samples} with --temperature 0 would repeat one greedy answer. "
                "Fix: --temperature 1, or --samples 1"
            )
        for k in self.pass_at:
            if not 1 <= k <= self.samples:
                raise ConfigError(
                    f"--pass-at {k} with --samples {self.samples}: wanted 1 to {self.samples}; pass@k needs at least k "
                    f"samples of each prompt. Fix: --samples {max(k, 1)} --temperature 1"
                )
        check_turns(self.environment, self.max_turns, self.max_episode_tokens)
        _ = self.sampling  # its own checks

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )

    @property
    def reading(self) -> Reading:
        kinds: tuple[Kind, ...] = ("prompts", "demonstrations", "preferences")
        instead: dict[Kind, str] = {kind: f"--kind {kind}" for kind in kinds}
        return Reading(
            columns=self.columns, split=self.split, on_bad_row=self.on_bad_row, method="eval", instead=instead
        )

    @property
    def run(self) -> Run:
        """For the checks and parts that a run shares with it."""
        return replace(Run(), dtype=self.dtype, device=self.device, max_tokens=self.max_tokens)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Evaluation:
    """What was found about one model."""

    model: str
    kind: Kind
    measured: tuple[Measured, ...]
    items: tuple[Trajectory, ...] = ()
    """The answers, where it was asked for some."""
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> list[Score]:
        """The headline first."""
        scores = [measured.score() for measured in self.measured]
        return [*scores, perplexity(scores[0])] if self.kind == "demonstrations" else scores

    def against(self, other: Evaluation) -> list[Difference]:
        """Every measure minus the other model's, paired by prompt."""
        if self.kind != other.kind:
            raise ConfigError(f"--against {other.model}: it was measured on {other.kind}, {self.model} on {self.kind}")
        pairs = [first.minus(second) for first, second in zip(self.measured, other.measured, strict=True)]
        return [difference for difference in pairs if difference is not None]


def evaluate(model: str, exam: Exam) -> Evaluation:
    """Prompts: the total reward first, its parts where there are several, pass@k, the share of finished answers.
    Preferences: the share of pairs ranked right, and the margin. Demonstrations: loss and perplexity.

    Raises: ConfigError and DataError.
    """
    kind = kind_of_exam(model, exam)
    if kind != "prompts" or is_reward_model(model):
        _refuse_answers(model, exam, kind)
        return _read(model, exam, kind)
    data = _opened(exam, kind, exam.reading)
    stage = Stage(load_environment(exam.environment), exam.reward_timeout) if exam.environment else None
    graders = Graders(Limits(timeout=exam.reward_timeout, workers=exam.reward_workers))
    named = () if stage and not exam.reward else graders.named(exam.reward, exam.data)
    try:
        check_columns(named, data)
        if stage is not None:
            check_parts(stage.name, named)
        return _answered(model, exam, data, named, stage)
    finally:
        for reward in named:
            reward.grader.close()
        if stage is not None:
            stage.close()


def _opened(exam: Exam, kind: Kind, reading: Reading) -> Loaded:
    return open_data(exam.data, kind, reading=reading, part="test", size=exam.size, seed=exam.seed)


def kind_of_exam(model: str, exam: Exam) -> Kind:
    """What the data is to the model: said by --kind, or seen by the model, the rewards and the columns."""
    if exam.kind != "auto":
        return exam.kind
    if is_reward_model(model):
        return "preferences"
    if exam.reward or exam.environment or is_task(exam.data):
        return "prompts"
    columns = columns_of(exam.data, exam.reading)
    if {"chosen", "rejected"} <= columns:
        return "preferences"
    return "demonstrations" if "completion" in columns else "prompts"


PAIRS = "--data with pairs, or a policy for --model"


def _refuse_answers(model: str, exam: Exam, kind: Kind) -> None:
    """Raises: ConfigError for what belongs to prompts and their answers, where none are drawn."""
    scores = is_reward_model(model)
    if scores and kind != "preferences":
        raise ConfigError(f"--kind {kind}: --model {model} is a reward model and only ranks pairs. Fix: {PAIRS}")
    asked = (("--reward", exam.reward), ("--environment", exam.environment))
    for flag, given in (*asked, ("--pass-at", exam.pass_at), ("--samples", exam.samples > 1)):
        if given:
            raise ConfigError(
                f"{flag}: {kind} are read, not answered, so it has nothing to say. Fix: leave it out, or "
                + ("a policy for --model" if scores else "--kind prompts")
            )


def _answered(model: str, exam: Exam, data: Loaded, named: Sequence[NamedReward], stage: Stage | None) -> Evaluation:
    play = stage and Play(
        stage=stage,
        max_turns=exam.max_turns,
        max_episode_tokens=exam.max_episode_tokens,
        on_error=exam.on_reward_error,
    )
    policy, text = _loaded(load_policy, model, exam, data)
    prompts, long = items.prompts(
        data.rows, text, shortest(_context(policy), exam.max_episode_tokens), exam.max_new_tokens, "skip"
    )
    answers = Generation(
        draw=draw_of(Engine(policy, text.end_ids, dtype=dtype_of(exam.run)), text, _context(policy), play),
        prompts=prompts,
        scorer=scorer_of(named, exam.on_reward_error, play),
        sampling=exam.sampling,
        samples=exam.samples,
        seed=exam.seed,
    )()
    measured = [_values("reward", [(item, item.reward.value) for item in answers])]
    parts = [*([stage.name] if stage else []), *(each.name for each in named)]
    if len(parts) > 1:
        measured += [_values(name, [(item, item.reward.parts.get(name)) for item in answers]) for name in parts]
    measured += [_passed(answers, k) for k in exam.pass_at]
    measured.append(_values("finished", [(item, _finished(item)) for item in answers]))
    notes = [*data.notes, *filter(None, map(form_of, named)), *text.notes, *([str(long)] if long else [])]
    notes += [note for name in parts if (note := _failures(name, answers))]
    return Evaluation(model, "prompts", tuple(measured), tuple(answers), tuple(notes))


def _finished(item: Trajectory) -> float | None:
    """None where its environment failed: nobody knows how it would have ended."""
    stop = item.completion.stop
    return None if stop is StopReason.ERROR else float(not stop.truncated)


def _failures(name: str, items: Sequence[Trajectory]) -> str:
    failures = Counter(item.reward.failures[name] for item in items if name in item.reward.failures)
    if not failures:
        return ""
    told = ", ".join(f"{count} × {text}" for text, count in failures.most_common(3))
    return (
        f"reward {name} failed on {failures.total()} of {len(items)} answers, which are unscored: {told}"
        if told
        else ""
    )


def _loaded(load: Callable[..., PreTrainedModel], model: str, exam: Exam, data: Loaded) -> tuple[PreTrainedModel, Text]:
    tokenizer = templated(load_tokenizer(model), exam.chat_template, exam.chat_template_kwargs)
    tokenizer = spoken(tokenizer, exam.data, played=bool(exam.environment))
    items.check_template(data.rows, data.kind, tokenizer)
    policy: PreTrainedModel = load(model, seed=exam.seed).to(device_of(exam.run))  # pyright: ignore[reportArgumentType]
    check_vocabulary(policy, tokenizer, model)
    return policy, Text(tokenizer, end_ids(policy, tokenizer))


def _values(name: str, values: Sequence[tuple[Trajectory, float | None]]) -> Measured:
    return Measured(name, tuple(Value(item.prompt.id, value) for item, value in values))


def _passed(items: Sequence[Trajectory], k: int) -> Measured:
    found = passes(items, k)
    if found is None:
        raise ConfigError(f"--pass-at {k}: rewards other than 0 and 1 are neither right nor wrong. Fix: leave it out")
    prompts = dict.fromkeys(item.prompt.id for item in items)
    return Measured(f"pass@{k}", tuple(Value(prompt, found.get(prompt)) for prompt in prompts), share=True)


@torch.no_grad()
def _read(model: str, exam: Exam, kind: Kind) -> Evaluation:
    """Log-probs or scores of what the data has: no sampling, one pass over each row."""
    scores, device, notes = is_reward_model(model), device_of(exam.run), []
    reading = exam.reading
    if scores:
        reading = replace(reading, method="a reward model", instead=dict.fromkeys(reading.instead, PAIRS))
    data = _opened(exam, kind, reading)
    policy, text = _loaded(load_reward_model if scores else load_policy, model, exam, data)
    learner = _reader(policy, exam)
    if kind == "demonstrations":
        shown, long = items.demonstrations(data.rows, text, _context(policy), "skip")
        batch = demonstration_batch(shown, device)
        losses = -torch.where(batch.mask, learner.policy(batch).logprobs, 0.0).double().sum(1)
        values = zip(losses.tolist(), batch.mask.sum(1).tolist(), strict=True)
        measured = (Measured("loss", tuple(Value(str(n), total, count) for n, (total, count) in enumerate(values))),)
    else:
        pairs, long = items.pairs(data.rows, text, _context(policy), "skip")
        batch = pair_batch(pairs, device)
        rewards, note = _pair_rewards(learner, batch, exam, scores=scores)
        notes.append(note)
        margins = (rewards[0::2] - rewards[1::2]).tolist()
        measured = (
            Measured("accuracy", tuple(Value(str(n), float(margin > 0)) for n, margin in enumerate(margins))),
            Measured("margin", tuple(Value(str(n), margin) for n, margin in enumerate(margins)), share=False),
        )
    notes += [*data.notes, *text.notes, *([str(long)] if long else [])]
    return Evaluation(model, kind, measured, notes=tuple(notes))


def _pair_rewards(learner: Learner, batch: Batch, exam: Exam, *, scores: bool) -> tuple[torch.Tensor, str]:
    """A reward for each row, chosen and rejected in turn, by the function that training uses; and what it is."""
    out = learner.policy(batch)
    if scores:
        return RewardHead()(out, batch), "a pair is right where the reward model scores the chosen answer higher"
    if exam.reference:
        reference = load_policy(exam.reference, seed=exam.seed).to(learner.device)  # pyright: ignore[reportArgumentType]
        batch = replace(batch, ref_logprobs=_reader(reference, exam).policy(batch).logprobs)
        note = f"a pair is right where log π − log π_ref is higher for the chosen answer; π_ref is {exam.reference}"
    else:
        batch = replace(batch, ref_logprobs=torch.zeros_like(out.logprobs))
        note = "a pair is right where log π is higher for the chosen answer; --reference makes it DPO's implicit reward"
    return ImplicitReward(beta=1.0)(out, batch), note


def _reader(model: PreTrainedModel, exam: Exam) -> Learner:
    """A model for passes without gradient, on the modules and in the microbatches of training."""
    plan = Optimization(learning_rate=1.0, critic_learning_rate=1.0, total_updates=1)
    return Learner(model, optimization=plan, max_tokens=exam.max_tokens, dtype=dtype_of(exam.run), entropy="none")


def _context(model: PreTrainedModel) -> int | None:
    return getattr(model.config, "max_position_embeddings", None)
