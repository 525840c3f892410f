"""The two kinds of node, in the variant that the cluster file names."""

from typing import Unpack

from byzsgd.cluster import Cluster, Variant
from byzsgd.protocol.node import PULL_AFTER, Node
from byzsgd.protocol.overlapped import OverlappedServer
from byzsgd.protocol.server import ParameterServer, ServerOptions
from byzsgd.protocol.synchronous import SynchronousServer, SynchronousWorker
from byzsgd.protocol.worker import Worker
from byzsgd.vectors import Vector

NO_BUFFERS = "the synchronous variant's filters look at single models, and buffers have no gradient"


def server_of(
    cluster: Cluster,
    identity: str,
    vector: Vector,
    **options: Unpack[ServerOptions],
) -> ParameterServer:
    """A correct server of a cluster; the arguments are those of ``ParameterServer``."""
    assert not (options.get("buffers") and cluster.variant is Variant.SYNCHRONOUS), NO_BUFFERS
    kind = ParameterServer
    if cluster.variant is Variant.SYNCHRONOUS:
        kind = SynchronousServer
    elif cluster.overlapped_gather:
        kind = OverlappedServer
    return kind(identity, cluster, vector, **options)


def worker_of(
    cluster: Cluster,
    identity: str,
    *,
    gather_period: int | None = None,
    pull_after: float = PULL_AFTER,
    buffers: int = 0,
) -> Node:
    """A correct worker of a cluster.

    Args:
        cluster: The cluster file's content.
        identity: A worker of it.
        gather_period: T, where the cluster file says "auto" and the variant is synchronous.
        pull_after: Seconds without a quorum after which to ask those who lack.
        buffers: So many coordinates at the end of every vector are buffers, not parameters.
    """
    if cluster.variant is Variant.SYNCHRONOUS:
        assert not buffers, NO_BUFFERS
        return SynchronousWorker(
            identity, cluster, gather_period=gather_period, pull_after=pull_after
        )
    return Worker(identity, cluster, pull_after=pull_after, buffers=buffers)
