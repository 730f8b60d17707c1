"""Measures on held-out data, by the same engine and the same objective as training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from oneloop.algorithms import Algorithm
from oneloop.batch import Batch
from oneloop.experience.dealt import dealt
from oneloop.experience.drawing import Draw
from oneloop.experience.episodes import Request, length_scalars, reward_scalars, turn_scalars
from oneloop.experience.passes import pass_scalars
from oneloop.experience.scoring import Scored, drawn_and_scored, silent
from oneloop.ports import Models, Scorer, SingleProcess, World
from oneloop.seeds import named_seed
from oneloop.types import Prompt, Sampling, Trajectory


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Answers held-out prompts and scores them.

    Args:
        samples: completions per prompt; above 1 needs a positive temperature.
    """

    draw: Draw
    prompts: Sequence[Prompt]
    scorer: Scorer
    sampling: Sampling
    samples: int = 1
    seed: int = 0
    say: Callable[[str], None] = silent
    """Told how far the scoring is, while it is slow."""
    world: World = field(default_factory=SingleProcess)
    """Ranks to which the prompts are dealt."""

    def __call__(self) -> list[Trajectory]:
        requests = [
            Request(prompt, number, sample, named_seed(self.seed, "evaluation", prompt.id, sample))
            for number, prompt in enumerate(self.prompts)
            for sample in range(self.samples)
        ]
        return dealt(self.world, requests, self._scored).trajectories

    def _scored(self, requests: Sequence[Request]) -> Scored:
        return drawn_and_scored(self.draw, self.scorer, requests, self.sampling, early=False, say=self.say)


def generation_scalars(items: Sequence[Trajectory]) -> dict[str, float]:
    """Rewards, pass@k of several samples, and lengths, as `eval/…`."""
    samples = max(item.sample for item in items) + 1
    scalars = {**reward_scalars(items), **pass_scalars(items, samples), **length_scalars(items), **turn_scalars(items)}
    return {f"eval/{name}": value for name, value in scalars.items()}


@torch.no_grad()
def loss_scalars(algorithm: Algorithm, models: Models, batch: Batch) -> dict[str, float]:
    """The training objective on held-out demonstrations or pairs, as `eval/…`."""
    batch = algorithm.prepare(batch, models)
    stats = algorithm.loss(models.policy(batch), batch, batch.size).stats
    return {f"eval/{name}": float(value) for name, value in stats.items()}


@dataclass(frozen=True)
class Every:
    """A measure that is due every `period` steps, and at the last one. Before the first, `measure` is called by itself.

    Args:
        period: in steps; 0 measures only at the last.
    """

    period: int
    last: int
    measure: Callable[[], dict[str, float]] = field(repr=False)

    def __call__(self, step: int) -> dict[str, float]:
        due = step + 1 == self.last or (self.period > 0 and (step + 1) % self.period == 0)
        return self.measure() if due else {}
