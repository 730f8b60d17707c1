"""Learning curves: which metrics matter, what they are called, and their lines in a picture of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import TYPE_CHECKING

from oneloop.record.reader import RunRecord

if TYPE_CHECKING:  # slow to load
    from matplotlib.axes import Axes

CURVES = {
    "reward": "mean reward of completions",
    "eval/reward": "mean reward, held-out prompts",
    "loss": "loss",
    "eval/loss": "loss, held-out data",
    "rewards/accuracies": "pairs ranked right, share",
    "eval/rewards/accuracies": "held-out pairs ranked right, share",
    "rewards/margins": "margin of a pair, reward",
    "kl": "KL to the reference, nats/token",
    "entropy": "entropy, nats/token",
    "completions/mean_length": "mean length, tokens",
    "completions/clipped_ratio": "truncated completions, share",
    "frac_reward_zero_std": "groups of equal rewards, share",
    "approx_kl": "KL(π_old ‖ π_θ), nats/token",
    "trust/kl": "KL(π_old ‖ π_θ) of a trust region's step, nats/action",
    "clip/gradient_zero": "tokens clipped to gradient 0, share",
    "explained_variance": "explained variance, share",
    "grad_norm": "gradient norm",
}
"""Metric and the words on its axis, in the order of the report."""

MORE = {
    "reward_std": "standard deviation of rewards",
    "frac_groups_kept": "groups kept, share",
    "clip/outside_band": "tokens outside the band, share",
    "ratio/max": "largest ratio π_θ / π_old",
    "rollout/logprob_gap/max": "largest |log π_old − log μ|, nats",
    "value_loss": "value loss",
    "kl_coef": "KL coefficient β",
    "learning_rate": "learning rate",
    "trust/accepted": "steps that the line search took, share",
    "episode_length/mean": "mean length of an episode, steps",
    "rewards/chosen": "reward of chosen answers",
    "rewards/rejected": "reward of rejected answers",
    "time/rollout": "seconds",
    "time/reward": "seconds",
    "time/prepare": "seconds",
    "time/update": "seconds",
    "tokens_per_second": "tokens per second",
}
"""The same, folded away."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a6700", "#56b4e9", "#1c1e21")
"""Told apart with every kind of colour vision (Okabe and Ito)."""
_DASHES = ("", "6 3", "2 2", "8 2 2 2")


@dataclass(frozen=True)
class Line:
    """One run's values of one metric; NaN where a value was not finite."""

    run: str
    place: int
    """The run's place on the page: its colour and dashes."""
    steps: list[int]
    values: list[float]

    @property
    def colour(self) -> str:
        return COLOURS[self.place % len(COLOURS)]

    @property
    def dashes(self) -> str:
        return _DASHES[self.place // len(COLOURS) % len(_DASHES)]


def metric_lines(records: Sequence[tuple[str, RunRecord]], metric: str) -> list[Line]:
    found = []
    for place, (name, record) in enumerate(records):
        # steps are counted from 1 for people, as on the terminal; what was measured before the first stands at 0
        points = [(0, row[metric]) for row in record.evaluations if row["done"] == 0 and metric in row]
        points += [(row["step"] + 1, row[metric]) for row in record.metrics if metric in row]
        values = [float(value) if isinstance(value, int | float) else nan for _, value in points]
        if any(isfinite(value) for value in values):
            found.append(Line(name, place, [step for step, _ in points], values))
    return found


def draw(axes: Axes, label: str, lines: Sequence[Line]) -> None:
    """The lines of one metric."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    for line in lines:
        dashes = (0, [float(part) / 1.5 for part in line.dashes.split()]) if line.dashes else "solid"
        few = len(line.steps) <= 12
        axes.plot(
            line.steps, line.values, color=line.colour, linestyle=dashes, linewidth=1.5,
            marker="o" if few else "", markersize=3.5,
        )  # fmt: skip
    axes.set(xlabel="step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
