"""A study's panels as one SVG: lines with their intervals over numbers, bars over names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from oneloop.lab.curves import COLOURS
from oneloop.studies.study import Panel, Result

WIDTH, HEIGHT, ACROSS = 4.6, 3.4, 3
"""Inches of a panel; panels beside each other."""
MARKS = "os^Dvx*"
Styles = Mapping[str, tuple[str, str]]


def picture(result: Result) -> str:
    """The same result gives the same bytes."""
    panels = list(result.table.values())
    across = min(len(panels), ACROSS)
    down = -(-len(panels) // across)
    settings: dict[Any, Any] = {"svg.hashsalt": result.study, "svg.fonttype": "none", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH * across, HEIGHT * down + 0.5), layout="constrained")
        FigureCanvasSVG(figure)
        styles = _styles(panels)
        for place, panel in enumerate(panels, start=1):
            _draw(figure.add_subplot(down, across, place), panel, styles)
        named = {
            label: mark for axes in figure.axes for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(len(named), 4), fontsize=8)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _styles(panels: Sequence[Panel]) -> dict[str, tuple[str, str]]:
    """Colour and mark of each series, the same in every panel."""
    series = dict.fromkeys(name for panel in panels for name in panel.series)
    return dict(zip(series, zip(cycle(COLOURS), cycle(MARKS)), strict=False))


def _draw(axes: Axes, panel: Panel, styles: Styles) -> None:
    names = [point.x for point in panel.points if isinstance(point.x, str)]
    if names:
        _bars(axes, panel, list(dict.fromkeys(names)), styles)
    else:
        _lines(axes, panel, styles)
    axes.set_xlabel(panel.axis, fontsize=9)
    axes.set_title(panel.quantity, fontsize=9, loc="left", wrap=True)
    axes.set_yscale(panel.y_scale)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Axes, panel: Panel, styles: Styles) -> None:
    for series in panel.series:
        colour, mark = styles[series]
        points = panel.of(series)
        x = [float(point.x) for point in points]
        axes.plot(x, [p.mean for p in points], color=colour, marker=mark, markersize=4, linewidth=1.4, label=series)
        low, high = ([p.interval[end] for p in points] for end in (0, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale(panel.x_scale)
    if panel.x_scale == "log":
        places = sorted({float(point.x) for point in panel.points})
        axes.set_xticks(places, [f"{place:g}" for place in places], fontsize=8)
        axes.minorticks_off()


def _bars(axes: Axes, panel: Panel, names: list[str], styles: Styles) -> None:
    width = 0.8 / len(panel.series)
    for number, series in enumerate(panel.series):
        points = panel.of(series)
        x = [names.index(str(p.x)) + (number - (len(panel.series) - 1) / 2) * width for p in points]
        away = [[p.mean - p.interval.low for p in points], [p.interval.high - p.mean for p in points]]
        axes.bar(
            x,
            [p.mean for p in points],
            width,
            yerr=away,
            color=styles[series][0],
            label=series,
            error_kw={"linewidth": 1},
        )
    narrow = len(names) > 4
    labels = [name.replace(" " if narrow else ", ", "\n" if narrow else ",\n") for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=6.5 if narrow else 8)
