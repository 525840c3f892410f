"""How much memory a node can need at worst, and usually: docs/reliability.md as functions.

At worst means that the f_servers and f_workers Byzantine nodes do all they can, and that every
queue is full of vectors that no other queue holds; a calm cluster takes a small part of it. Each
term is a limit that some module keeps: ``protocol.window`` of votes, ``transport.zeromq`` of
queues, ``transport.guard`` of what was sent and is not delivered.
"""

from byzsgd.cluster import KEPT_MAX, Cluster, Role, Variant, WireType
from byzsgd.protocol.window import WINDOW_STEPS
from byzsgd.transport import (
    CONNECTIONS_MAX,
    LOGIN_BYTES,
    POLL_SECONDS,
    STRANGERS_MAX,
    SUBSCRIPTION_BYTES,
    identity_bytes,
    queue_messages,
)
from byzsgd.transport.zeromq import request_queue_messages
from byzsgd.wire import FRAME_BYTES, Layout

MIB = 1 << 20

SERVER_BASE_BYTES = 64 * MIB
"""Resident memory of a server before it holds a vector: Python, NumPy and libraries."""

USUAL_BASE_BYTES = 48 * MIB
"""The same as ``SERVER_BASE_BYTES``, without any room."""

WORKER_BASE_BYTES = 320 * MIB
"""The same of a worker, with torch for the CPU; a data set comes on top."""

CONNECTION_BYTES = 64 * 1024
"""What libzmq holds for a connection besides frames."""

FRAMES_AT_ONCE = 4
"""Frames that libzmq holds for a connection besides those in queues: one that is being encrypted
and one that is being decrypted, each twice."""

SUBSCRIPTION_FACTOR = 50
"""Bytes of memory that a byte of a subscription costs a PUB."""

STRANGER_BYTES = 64 * 1024
"""What libzmq holds for a connection that has not logged in, besides what it has sent."""

LINE_BYTES_PER_SECOND = 1_000_000_000
"""What all connections of a node can bring in: a line of 10 Gbit/s, less what is no payload."""

OVERSHOOT_BYTES = int(POLL_SECONDS * LINE_BYTES_PER_SECOND)
"""What may come between two looks of the guard, beyond every budget."""

KERNEL_BYTES = 10 * MIB
"""Of one connection's socket buffers, with Linux's defaults: 6 MB to receive and 4 MB to send. Not
resident memory of the process, but counted by a limit on it (``MemoryMax=``)."""

BASE_DESCRIPTORS = 256
"""File descriptors of a node without peers: files, threads' wakers, 64 connections of HTTP."""

DIALLED_DESCRIPTORS = 8
"""Of a socket that dials."""


def vector_bytes(d: int) -> int:
    """Bytes of a vector in memory, and on the wire among servers and to operators."""
    return 4 * d


def wire_bytes(cluster: Cluster, d: int, *, buffers: int = 0) -> int:
    """Bytes of a vector on the wire between a server and a worker."""
    return Layout(d, cluster.wire_type, buffers).payload_bytes


def server_bytes(
    cluster: Cluster, d: int, base: int = SERVER_BASE_BYTES, *, buffers: int = 0
) -> int:
    """Resident memory of a server, at most.

    Args:
        cluster: The cluster file's content.
        d: Coordinates of every vector.
        base: Of a server that holds no vector yet.
        buffers: So many of the coordinates are buffers, not parameters.
    """
    n_ps, n_w, steps = cluster.n_servers, cluster.n_workers, WINDOW_STEPS
    gradients = steps
    if cluster.variant is Variant.SYNCHRONOUS:
        gradients = max(steps, cluster.f_servers + 2)
    # Windows; the quorums of two pieces of work; peers' last models; of a model: its own, its
    # vote, two results of work, one to be saved, and one that is being saved, twice.
    kept = gradients * n_w + steps * n_ps + n_ps + 7
    kept += 2 * _gradients_at_work(cluster) + 2 * cluster.server_quorum
    # Of each socket that receives: a message that is being read, and its copy.
    read = 2 * n_ps
    waiting = queue_messages(d) + request_queue_messages(d)
    to_workers = cluster.n_workers + (CONNECTIONS_MAX - 1) * cluster.f_workers
    sent = waiting * (_connections(cluster) - to_workers) + request_queue_messages(d) * (n_ps - 1)
    sent_rounded = waiting * to_workers + _roundings(cluster)
    # Peers, servers that are dialled, and whoever has logged in and is not known yet.
    senders = len(cluster.nodes) - 1 + n_ps - 1 + 1
    received = identity_bytes(Layout(d), queue_messages(d))
    hostile = _unlimited(cluster) + 1 + cluster.f_servers
    connections = 2 * _connections(cluster) + n_ps - 1
    return (
        base
        + vector_bytes(d) * (kept + read + sent)
        + wire_bytes(cluster, d, buffers=buffers) * sent_rounded
        + received * senders
        + _small_frames_bytes(received) * hostile
        + connection_bytes(d) * connections
        + _strangers_bytes(cluster)
    )


def server_usual_bytes(cluster: Cluster, d: int, *, buffers: int = 0) -> int:
    """Resident memory of a server in a calm run, after some steps.

    All peers are correct and equally fast, so that their vectors come at the same time, and nothing
    waits to be sent. This is its peak, at the end of a step's gradients; most of what is freed then
    is kept (``transport.malloc``).

    Args:
        cluster: The cluster file's content.
        d: Coordinates of every vector.
        buffers: So many of them are buffers, not parameters.
    """
    n_ps, n_w = cluster.n_servers, cluster.n_workers
    # Gradients; peers' last models, and votes of those a little ahead; of a model: its own, its
    # vote, a result of work.
    kept = n_w + 2 * (n_ps - 1) + 3
    # libzmq holds a message until it is whole, and then it is copied.
    read = n_w + _roundings(cluster)
    connections = 2 * n_w + 2 * (n_ps - 1)
    return (
        USUAL_BASE_BYTES
        + vector_bytes(d) * kept
        + wire_bytes(cluster, d, buffers=buffers) * read
        + connection_bytes(d) * connections
    )


def worker_bytes(
    cluster: Cluster, d: int, base: int = WORKER_BASE_BYTES, *, buffers: int = 0
) -> int:
    """Resident memory of a worker, at most, without its data set and what its task takes.

    Args:
        cluster: The cluster file's content.
        d: Coordinates of every vector.
        base: Of a worker that holds no vector yet.
        buffers: So many of the coordinates are buffers, not parameters.
    """
    n_ps = cluster.n_servers
    # The window; the quorums of two pieces of work; the median, the gradient, the average sent
    # last, the next one, and one that arithmetic needs.
    kept = WINDOW_STEPS * n_ps + 2 * cluster.server_quorum + 5
    if cluster.variant is Variant.SYNCHRONOUS:
        # What the filters look at, and gradients for servers that lost them.
        kept += 3 + KEPT_MAX
    # Of each socket that receives: a message that is being read, and its copy.
    read = 2 * n_ps
    sent = request_queue_messages(d) * n_ps + _roundings(cluster)
    if cluster.variant is Variant.SYNCHRONOUS:
        sent += _roundings(cluster) * (KEPT_MAX - 1)
    received = identity_bytes(Layout(d, cluster.wire_type, buffers), queue_messages(d))
    return (
        base
        + vector_bytes(d) * (kept + read)
        + wire_bytes(cluster, d, buffers=buffers) * (read + sent)
        + (received + connection_bytes(d)) * 2 * n_ps
        + _small_frames_bytes(received) * 2 * cluster.f_servers
        + OVERSHOOT_BYTES
    )


def connection_bytes(d: int) -> int:
    """What libzmq holds for a connection besides what waits in its queues."""
    return CONNECTION_BYTES + FRAMES_AT_ONCE * min(vector_bytes(d), FRAME_BYTES)


def descriptors(cluster: Cluster, role: Role) -> int:
    """File descriptors that a node of a role may have open, at most."""
    # Of each dialled socket: its connection, the guard's copy, and ends of a monitor.
    dialled = DIALLED_DESCRIPTORS * cluster.n_servers
    if role is not Role.SERVER:
        return BASE_DESCRIPTORS + 2 * dialled
    logged_in = _connections(cluster) + STRANGERS_MAX + len(cluster.nodes)
    return BASE_DESCRIPTORS + dialled + 2 * 2 * logged_in


def kernel_bytes(cluster: Cluster, role: Role) -> int:
    """What the kernel may hold for a node of a role besides, at most."""
    if role is Role.SERVER:
        return KERNEL_BYTES * (2 * _connections(cluster) + cluster.n_servers - 1)
    return KERNEL_BYTES * 2 * cluster.n_servers


def _gradients_at_work(cluster: Cluster) -> int:
    """Gradients in one update, at most."""
    synchronous = cluster.variant is Variant.SYNCHRONOUS
    return cluster.n_workers if synchronous else cluster.worker_quorum


def _roundings(cluster: Cluster) -> int:
    """Rounded copies that are kept of what is sent, for each vector that is."""
    return 0 if cluster.wire_type is WireType.FLOAT32 else 1


def _small_frames_bytes(held: int) -> int:
    """What bytes on the wire cost besides themselves if they are frames of a few bytes each."""
    return 16 * held // 5


def _connections(cluster: Cluster) -> int:
    """Connections to one bound socket that are logged in: one a node, more of some."""
    return len(cluster.nodes) - 1 + (CONNECTIONS_MAX - 1) * _unlimited(cluster)


def _unlimited(cluster: Cluster) -> int:
    """Peers that take all they can get: the Byzantine ones, and operators, who may be anybody."""
    operators = len(cluster.nodes) - cluster.n_servers - cluster.n_workers
    return cluster.f_servers + cluster.f_workers + operators


def _strangers_bytes(cluster: Cluster) -> int:
    """What others than nodes, and subscriptions of Byzantine nodes, cost a server."""
    # Besides the Byzantine, whoever has logged in and is not known yet.
    subscribers = cluster.f_servers + cluster.f_workers + 1
    strangers = 2 * 2 * (STRANGERS_MAX + len(cluster.nodes))
    return (
        strangers * (STRANGER_BYTES + LOGIN_BYTES)
        + subscribers * SUBSCRIPTION_FACTOR * SUBSCRIPTION_BYTES
        + OVERSHOOT_BYTES
    )
