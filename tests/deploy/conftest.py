"""What Prometheus can know of a cluster, for tests of the rules and dashboards that ask for it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

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
def exported(
    server: Any, worker: Any, cluster: Callable[..., Cluster]
) -> Mapping[str, frozenset[str]]:
    """The labels of every sample that nodes of either role and variant show, by its name."""
    rounds = replace(cluster(), variant=Variant.SYNCHRONOUS)
    found: dict[str, frozenset[str]] = {}
    for conversation in (server(), worker(), server(rounds), worker(rounds)):
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        node, saves = talkative(conversation.node), Saves(step=1)
        registry.register(
            NodeCollector(node, lambda: STATISTICS, lambda: 0.0, lambda: 0.0, saves=saves)
        )
        for family in registry.collect():
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, frozenset()) | sample.labels.keys()
    return found
