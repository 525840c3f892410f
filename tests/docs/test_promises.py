"""What the documents promise exists: metrics, and commands within sentences."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from byzsgd.checkpoint import Saves
from byzsgd.cluster import Cluster, Variant
from byzsgd.messages import Reason
from byzsgd.metrics import NodeCollector
from byzsgd.protocol import Node, ParameterServer, Worker, worker_of
from byzsgd.transport import Statistics
from byzsgd_daemons import cli

ROOT = Path(__file__).parents[2]
METRICS = ROOT / "docs/metrics.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

METRIC_ROW = re.compile(r"^\| `(byzsgd_\w+)` \| (\w+) \|", re.MULTILINE)
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE_COMMAND = re.compile(r"`(?:\S*/)?byzsgd ([a-z][a-z-]*)([^`]*)`")

STATISTICS = Statistics(
    messages={("model", "sent"): 1},
    bytes={("model", "sent"): 4},
    dropped={("w0", "model"): 1},
    refused={("w0", Reason.NON_FINITE): 1},
    last_seen={"w0": 0.0},
    boot={"w0": bytes(8)},
    connected=frozenset({"s1"}),
)


@pytest.fixture
def cluster() -> Cluster:
    servers = [
        {"id": f"s{i}", "role": "server", "address": f"127.0.0.1:{7000 + 2 * i}"} for i in range(5)
    ]
    workers = [{"id": f"w{i}", "role": "worker"} for i in range(4)]
    mapping = {"f_servers": 1, "f_workers": 1, "task": "quadratic", "nodes": servers + workers}
    return Cluster.from_mapping(mapping, keys=False)


def exposed(node: Node) -> dict[str, str]:
    """The names that a scrape of a node shows to PromQL, and their types."""
    registry = CollectorRegistry()
    saves = Saves(step=1)
    registry.register(
        NodeCollector(node, lambda: STATISTICS, lambda: 0.0, lambda: 0.0, saves=saves)
    )
    suffix = {"counter": "_total"}
    return {metric.name + suffix.get(metric.type, ""): metric.type for metric in registry.collect()}


def nodes(cluster: Cluster) -> list[Node]:
    """Nodes of both variants that have something to say in every metric."""
    server = ParameterServer("s0", cluster, np.ones(2, np.float32))
    server.progress.variance.ratio = 0.5
    worker = Worker("w0", cluster)
    worker.progress.loss = 1.0
    rounds = replace(cluster, variant=Variant.SYNCHRONOUS)
    return [server, worker, worker_of(rounds, "w0")]


def commands(text: str) -> set[tuple[str, str]]:
    """Every command of a document's sentences, maybe not whole, and the words after it."""
    return {*INLINE_COMMAND.findall(FENCE.sub("", text).replace("\n", " "))}


def test_every_metric_is_documented_and_no_other(cluster: Cluster) -> None:
    """The table of metrics is what a server and a worker expose, names and types."""
    promised = METRIC_ROW.findall(METRICS.read_text())
    found: dict[str, str] = {}
    for node in nodes(cluster):
        found |= exposed(node)

    assert len(promised) == len(dict(promised))
    assert dict(promised) == found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_commands_and_flags_exist(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every `byzsgd COMMAND --flag` of a document is one that byzsgd takes."""
    for command, words in sorted(commands(document.read_text())):
        with pytest.raises(SystemExit) as end:
            cli.main([command, "--help"])
        usage = capsys.readouterr().out
        flags = re.findall(r"(?<=\s)--[a-z][a-z-]*", words)

        assert end.value.code == 0, f"byzsgd {command}"
        assert [flag for flag in flags if flag not in usage] == [], f"byzsgd {command}{words}"
