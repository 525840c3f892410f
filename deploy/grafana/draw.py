"""Draws a dashboard without Grafana, from the answers of a Prometheus to the dashboard's queries.

python3 draw.py dashboards/overview.json --out overview.png --prometheus http://127.0.0.1:9090

It is a picture of the panels, their places, thresholds and words; not of Grafana. Needs matplotlib.
"""

import argparse
import json
import math
import re
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

Json = dict[str, Any]

DPI = 100
COLUMN, ROW, HEAD = 0.6, 0.26, 0.4
"""Inches: a column and a row of Grafana's grid, and the title above it."""

POINTS = 300
"""In a line."""

COLOURS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
LINES = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#8ab8ff", "#ffa6b0",
         "#96d98d", "#ca95e5", "#fade2a", "#fff899")  # fmt: skip
GROUND, PANEL, GRID, TEXT, FAINT = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#9a9ca0"

LEGEND_MAX = 66
"""Characters in a line of a legend, of which it has two."""

ROWS_MAX = 9

STYLE = {
    "text.color": TEXT,
    "axes.facecolor": PANEL,
    "axes.edgecolor": GRID,
    "axes.labelcolor": TEXT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "grid.color": GRID,
    "font.size": 8,
    "savefig.facecolor": GROUND,
}


@dataclass(frozen=True)
class Series:
    """What a query gave under one set of labels."""

    name: str
    labels: dict[str, str]
    values: list[tuple[float, float]]
    """Instants, and finite values or NaN."""

    @property
    def last(self) -> float:
        """The newest value."""
        return self.values[-1][1]


@dataclass
class Prometheus:
    """Where queries are answered, and what stands for the dashboard's variables."""

    address: str
    seconds: float
    """How long lines are."""
    variables: dict[str, str] = field(default_factory=dict)
    now: float = field(default_factory=time.time)

    def ask(self, path: str, **words: str | float) -> Any:
        """The data of an answer.

        Raises:
            OSError: If there is none.
        """
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def fill(self, dashboard: Json) -> None:
        """Give the first value to each variable that has none, as Grafana does."""
        for variable in dashboard["templating"]["list"]:
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", _query_of(variable))
            if found and variable["name"] not in self.variables:
                selector = self.filled(found[1])
                names = self.ask(f"label/{found[2]}/values", **{"match[]": selector})
                self.variables[variable["name"]] = names[0]

    def filled(self, query: str) -> str:
        """A query with the variables' values in it."""
        return re.sub(r"\$(\w+)", lambda found: self.variables[found[1]], query)

    def series(self, target: Json) -> list[Series]:
        """What a panel's query gives, over time or now."""
        query, now = self.filled(target["expr"]), self.now
        if target.get("instant"):
            found = self.ask("query", query=query, time=now)["result"]
            given = [(each["metric"], [each["value"]]) for each in found]
        else:
            step = max(self.seconds / POINTS, 1)
            found = self.ask(
                "query_range", query=query, start=now - self.seconds, end=now, step=step
            )
            given = [(each["metric"], each["values"]) for each in found["result"]]
        return [
            Series(
                name=_name(target["legendFormat"], labels),
                labels=labels,
                values=[(float(when), _finite(value)) for when, value in values],
            )
            for labels, values in given
        ]


def _query_of(variable: Json) -> str:
    query = variable.get("query", "")
    return str(query["query"] if isinstance(query, dict) else query)


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else math.nan


def _name(legend: str, labels: dict[str, str]) -> str:
    if legend == "__auto":
        return ", ".join(value for label, value in labels.items() if label != "__name__")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


# What values look like


def said(value: float, settings: Json) -> str:
    """A value with its unit, or the word that stands for it."""
    for mapping in settings.get("mappings", []):
        if word := mapping["options"].get(f"{value:g}"):
            return str(word["text"])
    unit, decimals = settings["unit"], settings.get("decimals")
    if math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return _scaled(value, [(3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")])
    if unit in ("bytes", "Bps"):
        bytes_ = [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")]
        return _scaled(value, bytes_) + ("/s" if unit == "Bps" else "")
    number = f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"
    number = f"{value:.0f}" if "e+" in number else number
    return f"{number} {unit.removeprefix('suffix:')}" if unit.startswith("suffix:") else number


def _scaled(value: float, units: list[tuple[float, str]]) -> str:
    reached = [each for each in units if abs(value or 1) >= each[0]]
    size, unit = (reached or units)[0 if reached else -1]
    return f"{value / size:.3g} {unit}"


def colour(value: float, settings: Json) -> str:
    """The colour of a value: of its word, or of the highest threshold that it reaches."""
    for mapping in settings.get("mappings", []):
        if word := mapping["options"].get(f"{value:g}"):
            return COLOURS[word["color"]]
    steps = settings["thresholds"]["steps"]
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]["color"]]


# Panels


def stat(axes: Axes, panel: Json, found: list[Series]) -> None:
    """Large words side by side, each with its name if there are several."""
    settings = panel["fieldConfig"]["defaults"]
    names = panel["options"]["textMode"] == "name"
    found = [each for each in found if not names or each.last]
    for index, each in enumerate(found):
        x = (index + 0.5) / len(found)
        words = each.name if names else said(each.last, settings)
        size = min(20, 55 * panel["gridPos"]["w"] / max(len(words), 1) / len(found))
        axes.text(x, 0.4, words, size=size, color=colour(each.last, settings), ha="center",
                  va="center", weight="bold")  # fmt: skip
        if len(found) > 1:
            axes.text(x, 0.08, each.name, ha="center", color=FAINT)
    axes.set_axis_off()


def timeseries(axes: Axes, panel: Json, found: list[Series]) -> None:
    """Lines over minutes, with a legend below."""
    settings = panel["fieldConfig"]["defaults"]
    end = max(when for each in found for when, _ in each.values)
    logarithmic = settings["custom"].get("scaleDistribution", {}).get("type") == "log"
    for index, each in enumerate(found):
        minutes = [(when - end) / 60 for when, _ in each.values]
        values = [value for _, value in each.values]
        if logarithmic:
            values = [value if value > 0 else math.nan for value in values]
        axes.plot(minutes, values, color=LINES[index % len(LINES)], linewidth=0.9, label=each.name)
    shown = [v for each in found for _, v in each.values if not math.isnan(v)]
    if logarithmic and any(value > 0 for value in shown):
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if settings["custom"].get("thresholdsStyle"):
        low, high = axes.get_ylim()
        for step in settings["thresholds"]["steps"]:
            if step["value"] is not None and low <= step["value"] <= max(high, 1.3 * step["value"]):
                axes.axhline(
                    step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=0.7
                )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: said(value, settings)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g} min" if value else "now")
    )
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(linewidth=0.5)
    axes.tick_params(length=0)
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, LEGEND_MAX // (max(map(len, names), default=0) + 5))
    if len(names) > (most := 2 * columns):
        handles, names = handles[:most], [*names[: most - 1], f"... of {len(names)}"]
    axes.legend(handles, names, loc="upper center", bbox_to_anchor=(0.45, -0.11), ncols=columns,
                frameon=False, fontsize=7, handlelength=1, columnspacing=1)  # fmt: skip


def bargauge(axes: Axes, panel: Json, found: list[Series]) -> None:
    """A bar for each, the first on top."""
    settings = panel["fieldConfig"]["defaults"]
    values = [0.0 if math.isnan(each.last) else each.last for each in found]
    most = settings.get("max") or max([*values, 1e-9]) * 1.05
    places = range(len(found))
    axes.barh(places, [most] * len(found), color=GRID, height=0.7)
    axes.barh(places, values, color=[colour(each.last, settings) for each in found], height=0.7)
    for place, each in zip(places, found, strict=True):
        axes.text(1.02 * most, place, said(each.last, settings), va="center",
                  color=colour(each.last, settings))  # fmt: skip
    axes.set_yticks(places, [each.name for each in found])
    axes.set_xlim(0, 1.25 * most)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_frame_on(False)


def table(axes: Axes, panel: Json, found: list[Series]) -> None:
    """A row for each series, a column for each label."""
    [transformation] = panel["transformations"]
    hidden = transformation["options"]["excludeByName"]
    columns = sorted({label for each in found for label in each.labels} - set(hidden))
    rows = [columns, *sorted([each.labels.get(column, "") for column in columns] for each in found)]
    shown = rows[: ROWS_MAX + 1] + [[f"... of {len(found)}"]] * (len(rows) > ROWS_MAX + 1)
    widths = [max(len(row[number]) for row in rows) + 2 for number in range(len(columns))]
    for index, row in enumerate(shown):
        for number, word in enumerate(row):
            x = sum(widths[:number]) / max(sum(widths), 30)
            axes.text(x, 0.95 - index / (ROWS_MAX + 2), word, va="center",
                      color=TEXT if index else FAINT)  # fmt: skip
    axes.set_axis_off()


DRAWN = {"stat": stat, "timeseries": timeseries, "bargauge": bargauge, "table": table}


def draw(dashboard: Json, prometheus: Prometheus, out: Path) -> list[str]:
    """Draw a dashboard into a PNG file.

    Args:
        dashboard: As Grafana takes it.
        prometheus: Who answers its queries.
        out: The file.

    Returns:
        The titles of the panels that had nothing to show.

    Raises:
        OSError: If Prometheus does not answer.
    """
    prometheus.fill(dashboard)
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    height = ROW * max(place["y"] + place["h"] for place in places) + 2 * HEAD
    empty = []
    with rc_context(STYLE):
        figure = Figure((24 * COLUMN, height), dpi=DPI)
        of = " ".join(f"{name} {prometheus.variables[name]}" for name in ("cluster", "node")
                      if name in prometheus.variables)  # fmt: skip
        figure.text(0.008, 1 - 0.6 * HEAD / height, f"{dashboard['title']}   ", size=11)
        figure.text(0.992, 1 - 0.6 * HEAD / height, of, size=8, color=FAINT, ha="right")
        figure.text(0.992, 0.3 * HEAD / height, "drawn from the dashboard's own queries by "
                    "deploy/grafana/draw.py, not by Grafana", color=FAINT, ha="right")  # fmt: skip
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            x, w = place["x"] * COLUMN, place["w"] * COLUMN
            top = height - HEAD - place["y"] * ROW
            if panel["type"] == "row":
                figure.text(
                    0.008, (top - 0.7 * ROW) / height, panel["title"], size=9, weight="bold"
                )
                continue
            found = [each for target in panel["targets"] for each in prometheus.series(target)]
            if not _frame(figure, panel, (x, top, w, place["h"] * ROW), found):
                empty.append(panel["title"])
        figure.savefig(out)
    Image.open(out).convert("RGB").quantize(160).save(out, optimize=True)  # Half the size.
    return empty


def _frame(
    figure: Figure, panel: Json, place: tuple[float, float, float, float], found: list[Series]
) -> bool:
    """A panel with its title; whether there was something to show."""
    width, height = figure.get_size_inches()
    x, top, w, h = place
    figure.add_artist(
        Rectangle(
            ((x + 0.04) / width, (top - h + 0.04) / height),
            (w - 0.08) / width,
            (h - 0.08) / height,
            facecolor=PANEL,
            edgecolor=GRID,
            linewidth=0.6,
            zorder=-1,
        )
    )
    figure.text((x + 0.13) / width, (top - 0.22) / height, panel["title"], size=8.5)
    left, below = {"timeseries": (0.7, 0.6), "bargauge": (0.7, 0.15)}.get(
        panel["type"], (0.15, 0.1)
    )
    axes = figure.add_axes(
        (
            (x + left) / width,
            (top - h + below) / height,
            (w - left - 0.2) / width,
            (h - below - 0.35) / height,
        )
    )
    if not any(each.values for each in found):
        words = panel["fieldConfig"]["defaults"].get("noValue", "No data")
        axes.text(0.5, 0.5, words, ha="center", va="center", color=FAINT, size=9)
        axes.set_axis_off()
        return False
    DRAWN[panel["type"]](axes, panel, found)
    return True


def main() -> None:
    """Draw what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("dashboard", type=Path, metavar="DASHBOARD.json")
    words.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    words.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="ADDRESS")
    words.add_argument("--minutes", type=float, default=5.0, help="of every line (default: 5)")
    words.add_argument("--cluster", help="default: the first that there is")
    words.add_argument("--node", help="default: the first that there is")
    given = words.parse_args()
    chosen = {name: getattr(given, name) for name in ("cluster", "node") if getattr(given, name)}
    prometheus = Prometheus(
        given.prometheus, 60 * given.minutes, {"__rate_interval": "1m"} | chosen
    )
    for title in draw(json.loads(given.dashboard.read_text()), prometheus, given.out):
        print(f"nothing to show: {title}")


if __name__ == "__main__":
    main()
