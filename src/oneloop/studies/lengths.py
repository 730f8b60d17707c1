"""Sequence mean's length bias: how long wrong answers become, by what the loss is divided by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from oneloop.algorithms import DR_GRPO, GRPO, PolicyGradient
from oneloop.batch import Batch, PolicyOutput
from oneloop.loop import train
from oneloop.objective.aggregate import FixedLength, TokenMean
from oneloop.ports import Models
from oneloop.seeds import named_seed
from oneloop.studies.judge import above, below, every, minus, said
from oneloop.studies.once import Kept, Once
from oneloop.studies.study import Claim, Judged, Panel, Point, Study, Table

PROMPTS, CHOICES, LONGEST = 16, 4, 24
"""The first token is the answer, one of four; up to 24 more tokens say nothing, each "go on" or "stop"."""
WRONG, RIGHT = 0, 1
BEGIN = 1.4
"""Logit of going on, before training: about five tokens."""
STEPS, QUICK_STEPS = 100, 12
GROUP = 8
PER_ANSWER = "GRPO (mean over each answer)"
PER_TOKEN, CONSTANT = "DAPO (mean over tokens)", "Dr. GRPO (constant, no std)"
WAYS: dict[str, PolicyGradient] = {
    PER_ANSWER: replace(GRPO, kl=None),
    PER_TOKEN: replace(GRPO, kl=None, aggregate=TokenMean()),
    CONSTANT: replace(DR_GRPO, aggregate=FixedLength(tokens=5)),
}


class Rambler(nn.Module):
    """Implements `oneloop.ports.Models`: a choice for each prompt, then how long to go on after it."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = nn.Parameter(torch.zeros(PROMPTS, CHOICES, dtype=torch.float64))
        self.onward = nn.Parameter(torch.full((2, LONGEST), BEGIN, dtype=torch.float64))
        rates = [{"params": [self.choice], "lr": 0.01}, {"params": [self.onward], "lr": 0.05}]
        self._optimizer = torch.optim.Adam(rates)

    def policy(self, batch: Batch) -> PolicyOutput:
        prompts, chosen, onward = batch.tokens[:, 0], batch.tokens[:, 1], batch.tokens[:, 2:]
        first = self.choice.log_softmax(-1)[prompts, chosen][:, None]
        logits = self.onward[is_right(prompts, chosen).long()][:, : onward.shape[1]]
        further = F.logsigmoid(torch.where(onward == 1, logits, -logits))
        return PolicyOutput(torch.cat([torch.zeros_like(first), first, further], 1))

    def reference(self, batch: Batch) -> Float[Tensor, "B T"]:
        raise NotImplementedError("this study has no KL")

    def step(self) -> Mapping[str, float]:
        self._optimizer.step()
        self._optimizer.zero_grad()
        return {}

    def length(self, kind: int) -> float:
        """Expected tokens after a right or wrong choice: 1 + Σ_t Π_(k≤t) p_k, as the last token ends by itself."""
        onward = torch.sigmoid(self.onward.detach()[kind])
        return 1 + float(onward[:-1].cumprod(0).sum())


def is_right(prompts: Tensor, chosen: Tensor) -> Bool[Tensor, " B"]:
    return chosen == prompts % CHOICES


class Talk(Once):
    """Implements `oneloop.ports.Experience`: a group of answers to every prompt. A right choice is worth 1."""

    def __init__(self, models: Rambler, seed: int) -> None:
        self._models, self._seed = models, seed
        self.lengths = [(models.length(WRONG), models.length(RIGHT))]

    @torch.no_grad()
    def batch(self, step: int) -> Batch:
        rng = torch.Generator().manual_seed(named_seed("lengths", self._seed, step))
        chosen = torch.multinomial(self._models.choice.softmax(-1), GROUP, replacement=True, generator=rng).reshape(-1)
        prompts = torch.arange(PROMPTS).repeat_interleave(GROUP)
        right = is_right(prompts, chosen)
        chance = torch.sigmoid(self._models.onward[right.long()])
        onward = torch.rand(chance.shape, generator=rng, dtype=torch.float64) < chance
        reached = torch.cat([torch.ones_like(onward[:, :1]), onward[:, :-1].cumprod(1).bool()], 1)
        mask = torch.cat([torch.tensor([False, True]).repeat(len(prompts), 1), reached], 1)
        rewards = torch.zeros(mask.shape, dtype=torch.float64)
        rewards[torch.arange(len(prompts)), mask.sum(1)] = right.double()
        return Batch(
            tokens=torch.cat([prompts[:, None], chosen[:, None], onward.long()], 1),
            mask=mask,
            group=prompts,
            rewards=rewards,
            truncated=torch.zeros(len(prompts), dtype=torch.bool),
        )

    def update(self, models: Models, step: int) -> None:
        self.lengths.append((self._models.length(WRONG), self._models.length(RIGHT)))


def run(seeds: Sequence[int], quick: bool) -> Table:
    steps = QUICK_STEPS if quick else STEPS
    panels: tuple[list[Point], list[Point]] = ([], [])
    for name, algorithm in WAYS.items():
        courses = [_lengths(algorithm, seed, steps) for seed in seeds]
        for place in range(0, steps + 1, steps // 4):
            for kind, panel in enumerate(panels):
                panel.append(Point(name, place, tuple(course[place][kind] for course in courses)))
    return {
        "wrong": Panel("expected length after a wrong choice, tokens", "step", tuple(panels[WRONG])),
        "right": Panel("expected length after a right choice, tokens", "step", tuple(panels[RIGHT])),
    }


def _lengths(algorithm: PolicyGradient, seed: int, steps: int) -> list[tuple[float, float]]:
    models = Rambler()
    talk = Talk(models, seed)
    train(algorithm, talk, models, Kept(), steps=steps, minibatch=PROMPTS, max_tokens=1 << 20, seed=seed)
    return talk.lengths


def _change(table: Table, kind: str, name: str) -> Point:
    points = table[kind].of(name)
    return minus(points[-1], points[0])


def _longer(table: Table) -> Judged:
    change, last = _change(table, "wrong", PER_ANSWER), table["wrong"].of(PER_ANSWER)[-1]
    return Judged(
        above(change.interval, 0.5), f"wrong answers grow by {said(change)} tokens in {last.x:g} steps, to {said(last)}"
    )


def _even(table: Table) -> Judged:
    changes = {name: _change(table, "wrong", name) for name in (PER_TOKEN, CONSTANT)}
    verdict = every(below(change.interval, 0.5) for change in changes.values())
    return Judged(
        verdict, "wrong answers change by " + ", ".join(f"{said(c)} tokens ({name})" for name, c in changes.items())
    )


def _shorter(table: Table) -> Judged:
    change = _change(table, "right", PER_ANSWER)
    return Judged(below(change.interval, -0.5), f"right answers change by {said(change)} tokens")


STUDY = Study(
    name="lengths",
    title="Sequence mean's length bias",
    setting=(
        f"{PROMPTS} prompts; the first token is the answer, one of {CHOICES}, and up to {LONGEST} more say nothing. A "
        "right answer is worth 1 whatever its length. The policy has logits for the choice, and for going on at each "
        f"place after a right or a wrong one. {STEPS} steps through oneloop's own loop, groups of {GROUP}, no KL. "
        "Expected lengths are exact."
    ),
    claims=(
        Claim(
            "Dividing by each answer's own length makes wrong answers longer",
            "founding documents, on Dr. GRPO; arXiv:2503.20783, section 3.1",
            _longer,
        ),
        Claim(
            "A mean over tokens and a constant divisor do not make them longer (by half a token)",
            "founding documents, DAPO's token-level loss and Dr. GRPO",
            _even,
        ),
        Claim("The same division makes right answers shorter", "arXiv:2503.20783, section 3.1", _shorter),
    ),
    run=run,
)
