"""The plots of the report, as SVG; without matplotlib there are none.

Lines differ in style, marker and grey, so that a print in black and white can be read.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a plot."""

    label: str
    style: int
    """Which style of the table; equal things have equal ones in all plots."""
    points: Sequence[Point]
    broken: bool = False
    """Whether its last point is where it broke off: marked by a cross."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One pair of axes."""

    title: str
    lines: Sequence[Line]
    x: str
    """What the horizontal axis shows, with its unit."""
    y: str
    """What the vertical axis shows, with its unit."""
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    marks: Sequence[float] = ()
    """Places on the horizontal axis that are marked."""
    marks_label: str = ""


STYLES = (
    {"color": "0.6", "linestyle": "-", "marker": "s", "linewidth": 2.4},
    {"color": "tab:blue", "linestyle": "-", "marker": "o", "linewidth": 1.8},
    {"color": "black", "linestyle": "--", "marker": "^", "linewidth": 1.2},
    {"color": "tab:red", "linestyle": ":", "marker": "D", "linewidth": 1.4},
    {"color": "tab:green", "linestyle": "-.", "marker": "v", "linewidth": 1.0},
)
"""Thicker ones first, so that lines that lie upon one another can be seen."""

MARKERS = 12
"""On a line, so that they do not hide it."""


def draw(panels: Sequence[Panel]) -> str | None:
    """Panels side by side as one SVG; None of none, and where matplotlib is not installed."""
    if not panels:
        return None
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return None
    # Equal data make equal files: nothing of the day or of chance is in them.
    with rc_context({"svg.hashsalt": "byzsgd", "svg.fonttype": "none"}):
        width = max(4.2 * len(panels), 6.0)
        figure = Figure(figsize=(width, 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for each, panel in zip(axes, panels, strict=True):
            _draw(each, panel)
        for each in axes[1:]:
            each.set_ylabel("")
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        return svg.getvalue()


def _draw(axes: Any, panel: Panel) -> None:
    for place in panel.marks:
        label = panel.marks_label if place == panel.marks[0] else None
        axes.axvline(place, color="0.75", linewidth=0.6, zorder=0, label=label)
    for line in panel.lines:
        if not line.points:
            continue
        xs, ys = zip(*line.points, strict=True)
        style: Mapping[str, Any] = STYLES[line.style % len(STYLES)]
        every = max(len(xs) // MARKERS, 1)
        axes.plot(xs, ys, label=line.label, markevery=every, markersize=4, **style)
        if line.broken:
            axes.plot(xs[-1:], ys[-1:], marker="x", markersize=11, color=style["color"])
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    if panel.log_x:
        axes.set_xscale("log")
        places = sorted({x for line in panel.lines for x, _ in line.points})
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    if panel.log_y:
        axes.set_yscale("log")
    if panel.y_range:
        axes.set_ylim(*panel.y_range)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
