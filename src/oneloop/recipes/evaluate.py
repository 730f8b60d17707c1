"""One model on held-out prompts: every reward as a mean with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from oneloop.config import Run, default_run
from oneloop.experience.evaluation import Generation
from oneloop.model.load import load_policy, load_tokenizer
from oneloop.model.text import Text, end_ids
from oneloop.recipes import data
from oneloop.recipes.build import dtype_of
from oneloop.recipes.device import device_of
from oneloop.recipes.inputs import task_or_named
from oneloop.record.statistics import Interval, share_or_mean
from oneloop.rewards import RewardScorer
from oneloop.rollout.engine import Engine
from oneloop.tasks.source import load_rows
from oneloop.types import Sampling, Trajectory


@dataclass(frozen=True)
class Score:
    """A mean over scored answers; None and no interval when nothing could be scored."""

    name: str
    mean: float | None
    interval: Interval | None
    answers: int
    unscored: int

    def __str__(self) -> str:
        if self.mean is None or self.interval is None:
            return f"{self.name:<16}none of {self.unscored} answers could be scored"
        unscored = f", {self.unscored} unscored" if self.unscored else ""
        low, high = self.interval
        return f"{self.name:<16}{self.mean:.4f}  95 % [{low:.4f}, {high:.4f}]  n = {self.answers}{unscored}"


def evaluate(
    model: str,
    source: str,
    rewards: Sequence[str] = (),
    *,
    size: int = 512,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
) -> list[Score]:
    """The total reward first, then its parts where there are several, then the share of finished answers."""
    named = task_or_named(rewards, source)
    rows = load_rows(source, "prompts", split="test", size=size, seed=seed)
    run = _run(samples, temperature, max_new_tokens, dtype, device)
    policy, tokenizer = load_policy(model, seed=seed).to(device_of(run)), load_tokenizer(model)  # pyright: ignore[reportArgumentType]
    text = Text(tokenizer, end_ids(policy, tokenizer))
    prompts, dropped = data.prompts(rows, text, getattr(policy.config, "max_position_embeddings", None), max_new_tokens)
    if dropped is not None:
        print(dropped)
    answers = Generation(
        engine=Engine(policy, text.end_ids, dtype=dtype_of(run)),
        prompts=prompts,
        decode=text.decode,
        scorer=RewardScorer(named),
        sampling=Sampling(max_new_tokens=max_new_tokens, temperature=temperature),
        samples=samples,
        seed=seed,
    )()
    finished = [(answer.prompt.id, float(not answer.completion.stop.truncated)) for answer in answers]
    parts = [_part(reward.name, answers) for reward in named] if len(named) > 1 else []
    return [score("reward", [(a.prompt.id, a.reward.value) for a in answers]), *parts, score("finished", finished)]


def _run(samples: int, temperature: float, max_new_tokens: int, dtype: str, device: str) -> Run:
    """The checks of a run's settings, for those that evaluation shares with it."""
    return replace(
        default_run("grpo"),
        eval_samples=samples,
        eval_temperature=temperature,
        max_new_tokens=max_new_tokens,
        dtype=dtype,  # pyright: ignore[reportArgumentType]
        device=device,
    )


def _part(name: str, answers: Sequence[Trajectory]) -> Score:
    return score(name, [(answer.prompt.id, answer.reward.parts.get(name)) for answer in answers])


def score(name: str, values: Sequence[tuple[str, float | None]]) -> Score:
    """The mean of values with the prompts they belong to; samples of one prompt are one cluster."""
    scored = [(key, value) for key, value in values if value is not None]
    numbers, keys = [value for _, value in scored], [key for key, _ in scored]
    if len(set(keys)) < 2:
        return Score(name, None, None, len(scored), len(values) - len(scored))
    mean = sum(numbers) / len(numbers)
    return Score(name, mean, share_or_mean(numbers, keys), len(scored), len(values) - len(scored))
