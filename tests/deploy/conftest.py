"""What Prometheus can know of a cluster, for tests of the rules and dashboards that ask for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.samples import Sample

from byzsgd.checkpoint import Saves
from byzsgd.cluster import Cluster, Variant
from byzsgd.filters import Filter
from byzsgd.messages import Reason
from byzsgd.metrics import NodeCollector
from byzsgd.protocol import Node
from byzsgd.transport import Statistics

STATISTICS = Statistics(
    messages={("model", "sent"): 1},
    bytes={("model", "sent"): 4},
    dropped={("w1", "model"): 1},
    refused={("w1", Reason.NON_FINITE): 1},
    last_seen={},
    boot={},
    connected=frozenset({"s2"}),
)


def talkative(node: Node) -> Node:
    """The node with something to say in every metric."""
    progress = node.progress
    progress.variance.ratio, progress.loss = 0.5, 1.0
    progress.worked("mda", 0.1)
    for counts in (progress.votes, progress.left_out, progress.missed, progress.accepted):
        counts["w1"] += 1
    progress.filtered["s2", Filter.LIPSCHITZ] += 1
    node.last_seen["s2"] = 0.0
    return node


@pytest.fixture
def shown(
    server: Any, worker: Any, cluster: Callable[..., Cluster]
) -> Mapping[str, Sequence[Sample]]:
    """All samples of a server and a worker of either variant, by what Prometheus calls the node."""
    rounds = replace(cluster(), variant=Variant.SYNCHRONOUS)
    conversations = {
        "s0": server(),
        "w0": worker(),
        "synchronous-s0": server(rounds),
        "synchronous-w0": worker(rounds),
    }
    found = {}
    for name, conversation in conversations.items():
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        node, saves = talkative(conversation.node), Saves(step=1)
        registry.register(
            NodeCollector(node, lambda: STATISTICS, lambda: 0.0, lambda: 0.0, saves=saves)
        )
        found[name] = [sample for family in registry.collect() for sample in family.samples]
    return found


@pytest.fixture
def exported(shown: Mapping[str, Sequence[Sample]]) -> Mapping[str, frozenset[str]]:
    """The labels of every sample that nodes show, by its name."""
    found: dict[str, frozenset[str]] = {}
    for samples in shown.values():
        for sample in samples:
            found[sample.name] = found.get(sample.name, frozenset()) | sample.labels.keys()
    return found
