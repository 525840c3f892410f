"""What lies in deploy/prometheus is what Prometheus takes, and asks for metrics that exist."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.deploy import promql

from byzsgd.messages import Reason

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = ("recording.yml", "alerts.yml")

ALERT = re.compile(r"^      - alert: (\w+)\n((?:        .*\n|\n)+)", re.MULTILINE)
ALERTS = dict(ALERT.findall((FOLDER / "alerts.yml").read_text()))
EXPRESSION = re.compile(r"^ +expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", re.MULTILINE)
RUNBOOK = re.compile(r"^### (Byzsgd\w+)\n\n(.+?)(?=^##)", re.MULTILINE | re.DOTALL)
SEVERITIES = {"critical", "warning", "info"}

every_alert = pytest.mark.parametrize("alert", ALERTS)


def expressions(file: str) -> list[str]:
    """The PromQL of every rule in a file."""
    return ["".join(found) for found in EXPRESSION.findall((FOLDER / file).read_text())]


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", *RULES),
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


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ('rate(byzsgd_node_steps_total{node="s0"}[1m]) and on (instance) up', []),
        ("sum by (node) (byzsgd_node_step_total)", ["byzsgd_node_step_total"]),
        ('byzsgd_node_step{peer="w1"}', ["byzsgd_node_step{peer}"]),
        ("count by (worker, colour) (byzsgd_node_step)", ["colour"]),
        ("cluster:byzsgd_node_step:median", ["cluster:byzsgd_node_step:median"]),
    ],
)
def test_what_no_node_shows_is_found(
    query: str, wrong: list[str], exported: Mapping[str, frozenset[str]]
) -> None:
    """A metric, a label that it is picked by, or one that is grouped by."""
    assert promql.unknown(query, exported) == wrong


@pytest.mark.parametrize("file", RULES)
def test_rules_ask_for_what_nodes_show(file: str, exported: Mapping[str, frozenset[str]]) -> None:
    """Every metric of a rule is exported or recorded, with the labels that the rule picks by."""
    text = (FOLDER / file).read_text()
    recorded = frozenset(promql.RECORD.findall((FOLDER / "recording.yml").read_text()))
    found = expressions(file)

    assert len(found) == text.count(" expr: ") > 5
    assert [what for each in found for what in promql.unknown(each, exported, recorded)] == []


def test_series_of_the_tests_are_what_nodes_show(exported: Mapping[str, frozenset[str]]) -> None:
    """A rule is not tested by a metric, or a label, that no node has."""
    text = (FOLDER / "alerts.test.yml").read_text()
    series = re.findall(r"\{series: '([^']+)'", text)

    assert len(series) > 50
    assert [what for each in series for what in promql.unknown(each, exported)] == []


def test_rules_name_reasons_and_roles_that_exist() -> None:
    """A misspelt reason would never be refused for."""
    found = [each for file in RULES for rule in expressions(file) for each in promql.matched(rule)]
    reasons = {one for _, label, value in found if label == "reason" for one in value.split("|")}

    assert reasons
    assert reasons - set(Reason) == set()


@every_alert
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: str) -> None:
    """With a severity, a time to wait, a summary that reads as a sentence, and a runbook."""
    text = ALERTS[alert]
    [severity] = re.findall(r"severity: (\w+)", text)
    [summary] = re.findall(r'^ +summary: "(.*)"$', text, re.MULTILINE)
    [description] = re.findall(r'^ +description: "(.*)"$', text, re.MULTILINE)
    [runbook] = re.findall(r"^ +runbook_url: (.*)$", text, re.MULTILINE)

    assert severity in SEVERITIES
    assert re.search(r"^        for: \d+[smh]$", text, re.MULTILINE)
    assert re.match(r"[A-Z]|\{\{ \$labels\.(node|peer|worker) ", summary)
    assert not summary.endswith(".")
    assert "{{ $labels." in summary
    assert description.endswith(".")
    assert runbook == f"docs/operations.md#{alert.lower()}"


@every_alert
def test_an_alert_is_tested_where_it_fires(alert: str) -> None:
    """On series of its own; those of a calm cluster are for all alerts."""
    text = (FOLDER / "alerts.test.yml").read_text()

    assert f"        alertname: {alert}\n        exp_alerts:\n          - exp_labels: " in text
    assert f"exp_samples: [{{labels: '{{alertname=\"{alert}\"}}', value: 1}}]" in text


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """A section of the operator's manual, in the order of the rules, with some words in it."""
    runbooks = dict(RUNBOOK.findall((ROOT / "docs" / "operations.md").read_text()))

    assert len(ALERTS) > 10
    assert list(runbooks) == list(ALERTS)
    assert all(len(text) > 100 for text in runbooks.values())
