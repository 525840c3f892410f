"""Who is told how many coordinates are buffers: updates and gradients, and nobody else."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.cluster import Cluster
from byzsgd.messages import GatherModel, Gradient, Model
from byzsgd.protocol import (
    Aggregate,
    Aggregated,
    ComputeGradient,
    Effect,
    Event,
    Node,
    Received,
    server_of,
    worker_of,
)

VECTOR = np.float32([1, 2, 3])


def asked(node: Node, *events: Event) -> Effect:
    """What a node wants last after some events."""
    return [effect for event in events for effect in node.handle(event, 0)][-1]


@pytest.mark.parametrize("overlapped", [False, True])
def test_an_update_knows_the_buffers_and_a_gather_has_none(
    overlapped: bool, cluster: Callable[..., Cluster]
) -> None:
    """Models are contracted as they are: their buffers are coordinates like all others."""
    members = cluster(5, 4, 1, 1, overlapped_gather=overlapped)
    server = server_of(members, "s1", VECTOR, buffers=2)
    server.start(0)
    update = asked(server, *(Received(w, Gradient(0, VECTOR)) for w in members.workers[:3]))

    assert isinstance(update, Aggregate)
    assert (update.buffers, update.model is VECTOR) == (2, True)
    server.handle(Aggregated(0, VECTOR), 0)
    gather = asked(server, *(Received(s, GatherModel(1, VECTOR)) for s in members.servers[1:4]))
    assert isinstance(gather, Aggregate)
    assert gather.buffers == 0


def test_a_gradient_knows_the_buffers_and_a_median_has_none(
    cluster: Callable[..., Cluster],
) -> None:
    """So momentum is of the parameters alone, also after the first step."""
    members = cluster(5, 4, 1, 1)
    worker = worker_of(members, "w1", buffers=2)
    worker.start(0)
    median = asked(worker, *(Received(s, Model(0, VECTOR)) for s in members.servers[:4]))

    assert isinstance(median, Aggregate)
    assert median.buffers == 0
    gradient = asked(worker, Aggregated(0, VECTOR))
    assert isinstance(gradient, ComputeGradient)
    assert gradient.buffers == 2


@pytest.mark.parametrize("make", [lambda c: server_of(c, "s1", VECTOR, buffers=1),
                                  lambda c: worker_of(c, "w1", buffers=1)])  # fmt: skip
def test_the_synchronous_variant_has_none(
    make: Callable[[Cluster], Node], cluster: Callable[..., Cluster]
) -> None:
    """Whoever builds its nodes has looked before."""
    with pytest.raises(AssertionError, match="buffers have no gradient"):
        make(cluster(5, 4, 1, 1, variant="synchronous"))
