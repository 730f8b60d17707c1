"""Learning curves as pictures inside the page: one for a metric, all runs in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from math import isfinite, nan
from typing import TYPE_CHECKING

from oneloop.lab.page import note, shown
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
    "clip/gradient_zero": "tokens clipped to gradient 0, share",
    "explained_variance": "explained variance, share",
    "grad_norm": "gradient norm",
}
"""Metric and the words on its axis, in the order of the page."""

MORE = {
    "reward_std": "standard deviation of rewards",
    "frac_groups_kept": "groups kept, share",
    "clip/outside_band": "tokens outside the band, share",
    "ratio/max": "largest ratio π_θ / π_old",
    "rollout/logprob_gap/max": "largest |log π_old − log μ|, nats",
    "value_loss": "value loss",
    "kl_coef": "KL coefficient β",
    "learning_rate": "learning rate",
    "rewards/chosen": "reward of chosen answers",
    "rewards/rejected": "reward of rejected answers",
    "time/rollout": "seconds",
    "time/reward": "seconds",
    "time/prepare": "seconds",
    "time/update": "seconds",
    "tokens_per_second": "tokens per second",
}
"""The same, folded away."""

_PARTS = re.compile(r"(eval/)?rewards/.+/mean")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a6700", "#56b4e9", "#1c1e21")
"""Told apart with every kind of colour vision (Okabe and Ito)."""
SQUASHED_HEIGHT, SQUASHED_WIDTH = 4, 3
"""How much smaller than the picture a line may be."""
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
        return _COLOURS[self.place % len(_COLOURS)]

    @property
    def dashes(self) -> str:
        return _DASHES[self.place // len(_COLOURS) % len(_DASHES)]


def curves(records: Sequence[tuple[str, RunRecord]]) -> str:
    """HTML of every curve that the runs have, the less telling ones folded away."""
    names = dict.fromkeys(name for _, record in records for row in record.metrics for name in row)
    parts = {name: "mean of one part of the reward" for name in names if _PARTS.fullmatch(name)}
    first = _grid(records, CURVES)
    more = _grid(records, parts | MORE)
    if not first and not more:
        return note("no metric was logged yet")
    folded = f"<details><summary>more curves</summary>{more}</details>" if more else ""
    return first + folded


def _grid(records: Sequence[tuple[str, RunRecord]], labels: dict[str, str]) -> str:
    figures = [
        _figure(metric, label, part, alone=len(parts) == 1)
        for metric, label in labels.items()
        for parts in [by_scale(metric_lines(records, metric))]
        for part in parts
    ]
    return f'<div class="curves">{"".join(figures)}</div>\n' if figures else ""


def metric_lines(records: Sequence[tuple[str, RunRecord]], metric: str) -> list[Line]:
    found = []
    for place, (name, record) in enumerate(records):
        # steps are counted from 1 for people, as on the terminal; what was measured before the first stands at 0
        points = [(0, row[metric]) for row in record.evaluations if row["done"] == 0 and metric in row]
        points += [(row["step"] + 1, row[metric]) for row in record.metrics if metric in row]
        values = [nan if value is None else float(value) for _, value in points]
        if any(isfinite(value) for value in values):
            found.append(Line(name, place, [step for step, _ in points], values))
    return found


def by_scale(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines that can share a picture: none is squashed to less than a quarter of its height or a third of its width."""
    pictures: list[list[Line]] = []
    for line in lines:
        fitting = (picture for picture in pictures if _share_a_scale([*picture, line]))
        if (found := next(fitting, None)) is None:
            pictures.append([line])
        else:
            found.append(line)
    return pictures


def _share_a_scale(lines: Sequence[Line]) -> bool:
    finite = [[value for value in line.values if isfinite(value)] for line in lines]
    heights = [max(values) - min(values) for values in finite]
    whole = max(map(max, finite)) - min(map(min, finite))
    wide = max(line.steps[-1] for line in lines)
    flat = [not height or height >= whole / SQUASHED_HEIGHT for height in heights]
    return all(flat) and all(line.steps[-1] >= wide / SQUASHED_WIDTH for line in lines)


def _figure(metric: str, label: str, lines: Sequence[Line], *, alone: bool) -> str:
    """No word of a run goes into the picture: HTML around it shows every script, and escapes it.

    Args:
        alone: the metric's only picture; where there are several, each names its runs.
    """
    missing = [f"{line.run}: {count}" for line in lines if (count := sum(not isfinite(v) for v in line.values))]
    gaps = note(f"values that were not finite, {', '.join(missing)}", "bad") if missing else ""
    legend = "".join(_key(line) for line in lines) if len(lines) > 1 or not alone else ""
    caption = f"<figcaption>{legend}{gaps}</figcaption>" if legend or gaps else ""
    return f"<figure><h3>{shown(metric)}</h3>{_picture(metric, label, lines)}{caption}</figure>"


def _key(line: Line) -> str:
    stroke = f'stroke="{line.colour}" stroke-width="3" stroke-dasharray="{line.dashes}"'
    swatch = f'<svg width="22" height="6" aria-hidden="true"><path d="M0 3H22" {stroke}/></svg>'
    return f"<span>{swatch}{shown(line.run)}</span>"


def _picture(metric: str, label: str, lines: Sequence[Line]) -> str:
    """An SVG, with a description for those who cannot see it. The same numbers give the same bytes."""
    import matplotlib  # noqa: PLC0415  # slow to load
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "oneloop", "font.size": 9.5}):
        figure = Figure(figsize=(5.0, 2.9), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
        draw(axes, label, lines)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    alt = f"{metric} ({label}) over steps. " + "; ".join(_words(line) for line in lines)
    key = f"{metric} {lines[0].place}"
    return _own_ids(svg[svg.index("<svg") :], key).replace(
        "<svg", f'<svg role="img" aria-label="{shown(alt)}"', 1
    )  # fmt: skip


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


def _own_ids(svg: str, key: str) -> str:
    """Ids are the page's, not the picture's: two pictures must not have the same ones."""
    prefix = "m" + sha256(key.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)


def _words(line: Line) -> str:
    finite = [value for value in line.values if isfinite(value)]
    return f"{line.run}: first {finite[0]:.3g}, last {finite[-1]:.3g}, {min(finite):.3g} to {max(finite):.3g}"
