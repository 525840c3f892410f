"""What lies in deploy/prometheus is what Prometheus takes, and asks for metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"

METRIC = re.compile(r"\bbyzsgd_(?:node|server|worker|build)_\w+")
METRIC_ROW = re.compile(r"^\| `(byzsgd_\w+)` \|", re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_takes_it(words: tuple[str, ...]) -> None:
    """Nothing is wrong in the eyes of promtool, and alerts fire when they should, and only then."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("NOT TESTED: no promtool here; apt-get install prometheus")
    command = [promtool, *words]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["alerts.yml", "alerts.test.yml"])
def test_rules_ask_for_metrics_that_exist(file: str) -> None:
    """Every metric that a rule names stands in README's table, which a test holds to the code."""
    known = set(METRIC_ROW.findall((ROOT / "README.md").read_text()))
    named = set(METRIC.findall((FOLDER / file).read_text()))

    assert named
    assert named - known == set()
