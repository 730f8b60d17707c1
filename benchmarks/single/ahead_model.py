"""How much faster rollouts that do not wait are: a simulation of the sampler and the trainer, pass by pass.

The sampler decodes rows together, one token of each a pass. A pass costs `of_pass` seconds and
`of_row` for each row that still runs; the trainer costs the same every step. A step's rows begin when the weights that
they may be drawn from are there, which takes `handover` after the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from random import Random
from statistics import fmean

Lengths = Sequence[Sequence[int]]
"""Tokens of each row, by step."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds.

    Args:
        of_batch: of a step's rollout before its first pass: prompts.
        of_pass: of a pass, whatever it decodes.
        of_row: of a row in a pass.
        train: of a step without its rollout.
        handover: from an update until the sampler has its weights.
    """

    of_batch: float = 0.0
    of_pass: float
    of_row: float
    train: float
    handover: float = 0.0

    def rollout(self, lengths: Sequence[int]) -> float:
        """Of one step, alone."""
        return self.of_batch + self.of_pass * max(lengths) + self.of_row * sum(lengths)


def synchronous(costs: Costs, lengths: Lengths) -> list[float]:
    """When each step ends."""
    now, ends = 0.0, []
    for step in lengths:
        now += costs.rollout(step) + costs.train
        ends.append(now)
    return ends


def finishing(costs: Costs, lengths: Lengths, staleness: int) -> list[float]:
    """When each step ends, if step j is drawn whole from the weights of j − K updates."""
    drawn, ends = 0.0, []
    for number, step in enumerate(lengths):
        last = number - staleness - 1  # the step whose update made them
        weights = ends[last] + costs.handover if last >= 0 else 0.0
        drawn = max(drawn, weights) + costs.rollout(step)
        ends.append(max(drawn, ends[-1] if ends else 0.0) + costs.train)
    return ends


def continuing(costs: Costs, lengths: Lengths, staleness: int) -> list[float]:
    """When each step ends, if the rows of up to K + 1 steps are decoded together, across updates."""
    now, begun = 0.0, 0
    running: dict[int, list[int]] = {}
    drawn: dict[int, float] = {}
    ends: list[float] = []
    while len(ends) < len(lengths):
        while begun < len(lengths) and _may_begin(begun, staleness, ends, now, costs):
            running[begun] = sorted(lengths[begun])
            now += costs.of_batch
            begun += 1
        if not running:  # until the update that lets the next step begin
            now = max(now, ends[begun - staleness - 1] + costs.handover)
            continue
        now += costs.of_pass + costs.of_row * sum(map(len, running.values()))
        for step, rows in list(running.items()):
            running[step] = [left - 1 for left in rows if left > 1]
            if not running[step]:
                del running[step]
                drawn[step] = now
        while len(ends) in drawn:
            ends.append(max(drawn[len(ends)], ends[-1] if ends else 0.0) + costs.train)
    return ends


def _may_begin(step: int, staleness: int, ends: Sequence[float], now: float, costs: Costs) -> bool:
    last = step - staleness - 1
    return last < 0 or (last < len(ends) and ends[last] + costs.handover <= now)


def seconds_per_step(ends: Sequence[float], skipped: int) -> float:
    """In the steady state: without the first steps."""
    return (ends[-1] - ends[skipped - 1]) / (len(ends) - skipped)


def spread(steps: int, rows: int, mean: int, variation: float, most: int, seed: int = 0) -> list[list[int]]:
    """Lognormal lengths of that mean and coefficient of variation, cut at `most`."""
    random = Random(seed)
    sigma = sqrt(log(1 + variation**2))
    mu = log(mean) - sigma**2 / 2
    return [[min(max(round(exp(random.gauss(mu, sigma))), 1), most) for _ in range(rows)] for _ in range(steps)]


def table(rows: int = 64, mean: int = 100, most: int = 1000, steps: int = 60) -> list[dict[str, float]]:
    """Speed-up over taking turns, by length spread, trainer ÷ sampler, and K."""
    answers = []
    for variation in (0.0, 0.5, 1.0, 2.0):
        lengths = spread(steps, rows, mean, variation, most)
        alone = Costs(of_pass=1.0, of_row=0.05, train=0.0)
        drawing = fmean(alone.rollout(step) for step in lengths)
        for ratio in (0.3, 1.0, 2.0):
            costs = Costs(of_pass=1.0, of_row=0.05, train=ratio * drawing)
            turns = seconds_per_step(synchronous(costs, lengths), 10)
            line = {"variation": variation, "train/rollout": ratio}
            for staleness in (1, 2, 4):
                for name, run in (("finish", finishing), ("continue", continuing)):
                    line[f"{name} {staleness}"] = turns / seconds_per_step(run(costs, lengths, staleness), 10)
            answers.append(line)
    return answers
