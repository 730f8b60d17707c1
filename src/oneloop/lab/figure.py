"""Learning curves as one matplotlib figure, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from oneloop.errors import ConfigError
from oneloop.lab.curves import CURVES, MORE, draw, metric_lines
from oneloop.record.reader import RunRecord

COLUMNS, WIDTH, HEIGHT = 3, 4.2, 2.7
"""Pictures beside each other; inches of each."""


class Curves(Figure):
    """A figure that a notebook shows as it is, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=96)
        return buffer.getvalue()


def learning_curves(records: Sequence[tuple[str, RunRecord]], metrics: Sequence[str] = ()) -> Curves:
    """One picture for each metric, all runs in it; without `metrics`, those that `oneloop report` shows first.

    Raises: ConfigError for a metric that no run has.
    """
    labels = CURVES | MORE
    drawn = {name: metric_lines(records, name) for name in metrics or CURVES}
    if missing := [name for name in metrics if not drawn[name]]:
        known = sorted({name for _, record in records for row in record.metrics for name in row} - {"step", "time"})
        raise ConfigError(f"no step has a finite {missing[0]!r}; there is {', '.join(known) or 'nothing yet'}")
    drawn = {name: lines for name, lines in drawn.items() if lines}
    across = min(len(drawn), COLUMNS) or 1
    down = -(-len(drawn) // across) or 1
    figure = Curves(figsize=(WIDTH * across, HEIGHT * down), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, lines) in enumerate(drawn.items(), start=1):
        axes = figure.add_subplot(down, across, place)
        draw(axes, labels.get(name, ""), lines)
        axes.set_title(name, fontsize=9.5, loc="left")
    if not drawn:
        figure.text(0.5, 0.5, "no step was recorded yet", ha="center", va="center")
    elif len(records) > 1:
        figure.legend([name for name, _ in records], loc="outside lower center", ncols=min(len(records), 6))
    return figure
