"""What lies in deploy/prometheus is what Prometheus takes, and asks for metrics that exist."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.deploy import promql

from byzsgd.messages import Reason
from byzsgd_daemons.init import Addresses, Plan, create

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
    ("labels", "receiver"),
    [(["severity=critical"], "pager"), (["severity=warning"], "mail"), (["severity=info"], "mail")],
    ids=lambda value: str(value),
)
def test_alertmanager_takes_its_configuration(labels: list[str], receiver: str) -> None:
    """And sends to the pager what cannot wait."""
    amtool = shutil.which("amtool")
    if amtool is None:
        pytest.skip("NOT TESTED: no amtool here; apt-get install prometheus-alertmanager")
    file = FOLDER / "alertmanager.yml"
    command = [amtool, "config", "routes", "test", "--config.file", file, *labels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.strip()) == (0, receiver), done.stderr


def test_alertmanager_holds_back_alerts_that_exist() -> None:
    """One of a node by one that names the same node, one of a cluster by one of the cluster."""
    text = (FOLDER / "alertmanager.yml").read_text()
    found = re.findall(
        r'source_matchers: \[alertname=~?"(.*)"\]\n +target_matchers: \[alertname=~?"(.*)"\]\n'
        r" +equal: \[(.*)\]",
        text,
    )

    assert len(found) == text.count("source_matchers") > 2
    for sources, targets, equal in found:
        assert {*sources.split("|"), *targets.split("|")} <= ALERTS.keys()
        assert set(sources.split("|")).isdisjoint(targets.split("|"))
        of_clusters = all("Cluster {{ $labels.cluster }}" in ALERTS[s] for s in sources.split("|"))
        assert equal == ("cluster" if of_clusters else "cluster, node")


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


# Targets


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    plan = Plan(servers=5, workers=4, task="quadratic")
    addresses = Addresses.consecutive(plan, "127.0.0.1", 7000, 9100)
    return create(tmp_path / "mine", plan, addresses)


@pytest.fixture
def targets() -> Callable[..., Any]:
    """Runs targets.py with some words."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-S", FOLDER / "targets.py", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_targets_are_the_nodes_of_the_cluster_file(cluster_file: Path, targets: Any) -> None:
    """With the labels that rules want; operators answer no HTTP, and no package is needed."""
    done = targets(cluster_file)
    found = json.loads(done.stdout)

    assert (done.returncode, done.stderr, len(found)) == (0, "", 9)
    labels = {"cluster": "mine", "node": "s0", "role": "server"}
    assert found[0] == {"targets": ["127.0.0.1:9100"], "labels": labels}
    assert found[-1]["labels"]["node"] == "w3"
    assert found[0]["labels"].keys() | {"instance", "job"} == promql.TARGET_LABELS


def test_prometheus_takes_targets_where_its_configuration_looks_for_them(
    cluster_file: Path, targets: Any, tmp_path: Path
) -> None:
    """Written whole, by the command in the head of the configuration."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("NOT TESTED: no promtool here; apt-get install prometheus")
    for file in ("prometheus.yml", *RULES):
        shutil.copy(FOLDER / file, tmp_path)
    done = targets(cluster_file, "--cluster", "digits", "--out", tmp_path / "targets" / "x.json")
    checked = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert [path.name for path in (tmp_path / "targets").iterdir()] == ["x.json"]
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"127.0.0.1:9101"', '"0.0.0.0:9101"', "s1: http: 0.0.0.0:9101 is no address to ask"),
        ("[[nodes]]", "[[knots]]", "no node with an http address"),
        ("f_servers =", "f_servers", "Expected '='"),
    ],
)
def test_a_file_without_targets_is_refused(
    cluster_file: Path, targets: Any, before: str, after: str, words: str
) -> None:
    """In one line, with status 2."""
    cluster_file.write_text(cluster_file.read_text().replace(before, after))
    done = targets(cluster_file)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr


def test_a_node_without_http_is_named(cluster_file: Path, targets: Any) -> None:
    """The others are watched."""
    text = cluster_file.read_text().replace('http = "127.0.0.1:9108"\n', "")
    cluster_file.write_text(text)
    done = targets(cluster_file)

    assert done.stderr == "w3 has no http address: not watched\n"
    assert len(json.loads(done.stdout)) == 8
