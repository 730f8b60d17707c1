"""Measures on held-out data, by the same engine and the same objective as training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch

from oneloop.algorithms import Algorithm
from oneloop.batch import Batch
from oneloop.ports import Models, RolloutEngine, Scorer
from oneloop.seeds import named_seed
from oneloop.types import Prompt, Reward, Sampling, Trajectory


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Answers held-out prompts and scores them.

    Args:
        samples: completions per prompt; above 1 needs a positive temperature.
    """

    engine: RolloutEngine
    prompts: Sequence[Prompt]
    decode: Callable[[Sequence[int]], str]
    scorer: Scorer
    sampling: Sampling
    samples: int = 1
    seed: int = 0

    def __call__(self) -> list[Trajectory]:
        asked = [(number, sample) for number in range(len(self.prompts)) for sample in range(self.samples)]
        chosen = [self.prompts[number] for number, _ in asked]
        seeds = [
            named_seed(self.seed, "evaluation", prompt.id, sample)
            for prompt, (_, sample) in zip(chosen, asked, strict=True)
        ]
        completions = self.engine.generate([prompt.tokens for prompt in chosen], self.sampling, seeds)
        return self.scorer(
            [
                Trajectory(
                    prompt=prompt,
                    group=number,
                    sample=sample,
                    completion=completion,
                    text=self.decode(completion.tokens),
                    reward=Reward(value=None),
                )
                for (number, sample), prompt, completion in zip(asked, chosen, completions, strict=True)
            ]
        )


def generation_scalars(items: Sequence[Trajectory]) -> dict[str, float]:
    """Means of reward, its parts, length and truncated share, as `eval/…`."""
    scored = [item.reward.value for item in items if item.reward.value is not None]
    scalars = {
        "eval/unscored": float(len(items) - len(scored)),
        "eval/completions/mean_length": fmean(len(item.completion.tokens) for item in items),
        "eval/completions/clipped_ratio": fmean(item.completion.stop.truncated for item in items),
    }
    if scored:
        scalars = {"eval/reward": fmean(scored), **scalars}
    for name in dict.fromkeys(name for item in items for name in item.reward.parts):
        parts = [part for item in items if (part := item.reward.parts.get(name)) is not None]
        if parts:
            scalars[f"eval/rewards/{name}/mean"] = fmean(parts)
    return scalars


@torch.no_grad()
def loss_scalars(algorithm: Algorithm, models: Models, batch: Batch, max_tokens: int) -> dict[str, float]:
    """The training objective on held-out demonstrations or pairs, as `eval/…`."""
    batch = algorithm.prepare(batch, models)
    totals: dict[str, float] = {}
    for micro in batch.microbatches(max_tokens):
        for name, value in algorithm.loss(models.policy(micro), micro, batch.size).stats.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return {f"eval/{name}": value for name, value in totals.items()}


@dataclass(frozen=True)
class Every:
    """A measure that is due every `period` steps, and at the last one.

    Args:
        period: in steps; 0 measures only at the last.
    """

    period: int
    last: int
    measure: Callable[[], dict[str, float]] = field(repr=False)

    def __call__(self, step: int) -> dict[str, float]:
        due = step + 1 == self.last or (self.period > 0 and (step + 1) % self.period == 0)
        return self.measure() if due else {}
