"""Dashboards can be drawn without Grafana: every panel, from the answers to its own queries."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("dashboards/*.json")}


@pytest.fixture(scope="module")
def draw() -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(FOLDER / "draw.py"))


@pytest.fixture
def prometheus(draw: dict[str, Any]) -> Any:
    """Answers every query with a line of two nodes, one of which is NaN at the end; asks nobody."""

    class Prometheus(draw["Prometheus"]):
        silent = "nothing"

        def ask(self, path: str, **words: Any) -> Any:
            if path.startswith("label/"):
                return ["c"] if "cluster" in path else ["s0", "w0"]
            self.asked.append(words["query"])
            if self.silent in words["query"]:
                return {"result": []}
            found = []
            for node, last in (("s0", "0.5"), ("w0", "NaN")):
                line = [[instant, "1.5"] for instant in range(9)] + [[9, last]]
                labels = {"node": node, "peer": node, "alertname": "X"}
                found.append({"metric": labels, "values": line, "value": line[-1]})
            return {"result": found}

    prometheus = Prometheus("http://nowhere", 9.0, {"__rate_interval": "1m"}, 9.0)
    prometheus.asked = []
    return prometheus


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_every_panel_is_drawn_from_its_own_queries(
    name: str, draw: dict[str, Any], prometheus: Any, tmp_path: Path
) -> None:
    """With values for all variables; the picture shows more than its ground."""
    board = DASHBOARDS[name]
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]

    assert draw["draw"](board, prometheus, tmp_path / "x.png") == []
    assert prometheus.asked == [prometheus.filled(query) for query in queries]
    assert not any("$" in query for query in prometheus.asked)
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    for line in draw["LINES"][:2]:
        colour = np.array([*bytes.fromhex(line.removeprefix("#"))])
        assert (np.abs(pixels - colour).sum(axis=2) < 40).sum() > 100, "so many pixels of a line"


def test_panels_without_data_are_named(
    draw: dict[str, Any], prometheus: Any, tmp_path: Path
) -> None:
    """In the picture they say what Grafana would say."""
    prometheus.silent = "byzsgd_worker_loss"
    assert draw["draw"](DASHBOARDS["overview"], prometheus, tmp_path / "x.png") == ["Loss"]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.256, "percentunit", "25.6 %"),
        (0.0042, "s", "4.2 ms"),
        (90, "s", "1.5 min"),
        (0.0, "s", "0 s"),
        (3 * 2**20, "Bps", "3 MiB/s"),
        (12.3456, "suffix:steps/s", "12.3 steps/s"),
        (1234567, "none", "1234567"),
        (float("nan"), "none", "-"),
        (1, "none", "trains"),
    ],
)
def test_values_are_said_with_their_units(
    draw: dict[str, Any], value: float, unit: str, words: str
) -> None:
    """Or by the word that stands for them."""
    mappings = [{"options": {"1": {"text": "trains", "color": "green"}}}]
    assert draw["said"](value, {"unit": unit, "mappings": mappings}) == words


def test_a_value_has_the_colour_of_the_highest_threshold_it_reaches(draw: dict[str, Any]) -> None:
    """The first one has no value."""
    steps = [{"value": None, "color": "green"}, {"value": 1, "color": "red"}]
    settings = {"thresholds": {"steps": steps}}
    shown = [draw["colour"](value, settings) for value in (0.9, 1, float("nan"))]
    assert shown == [draw["COLOURS"][name] for name in ("green", "red", "green")]
