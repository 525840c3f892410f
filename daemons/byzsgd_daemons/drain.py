"""Waits until nodes can be stopped and the others go on; it asks all nodes, and tells none."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from byzsgd.cluster import Cluster, Role, nearest
from byzsgd.errors import ByzsgdError, ConfigError
from byzsgd_daemons import watch
from byzsgd_daemons.watch import Status

LOOK_SECONDS = 1.0
"""Between two looks."""


def drain(
    cluster: Cluster, nodes: Sequence[str], *, seconds: float, tell: Callable[[str], None]
) -> str:
    """Wait until some nodes can be stopped without a standstill; return a sentence that says so.

    Nothing keeps another operator from stopping other nodes in the same moment.

    Args:
        cluster: The cluster.
        nodes: Who is to be stopped.
        seconds: How long to wait.
        tell: Told what there is to wait for, when that changes.

    Raises:
        ConfigError: If a node is unknown, or so many can never be stopped at once.
        ByzsgdError: If it is not safe when time is up.
    """
    check(cluster, nodes)
    until, told = time.monotonic() + seconds, ""
    while True:
        found = asyncio.run(watch.statuses(cluster))
        against = "; ".join(reasons(cluster, found, nodes))
        if not against:
            return f"{', '.join(nodes)} can be stopped: {_left(cluster, found, nodes)}"
        if against != told:
            told = against
            tell(f"waits: {against}")
        if time.monotonic() + LOOK_SECONDS > until:
            raise ByzsgdError(f"not safe within {seconds:g} s: {against}")
        time.sleep(LOOK_SECONDS)


def check(cluster: Cluster, nodes: Sequence[str]) -> None:
    """Refuse nodes that are unknown, and more of a role than may ever be away.

    Raises:
        ConfigError: If so.
    """
    known = [*cluster.servers, *cluster.workers]
    for node in nodes:
        if node not in known:
            raise ConfigError(f"{node}: no server or worker of the cluster; {nearest(node, known)}")
    for role in (Role.SERVER, Role.WORKER):
        asked = [node for node in _members(cluster, role) if node in nodes]
        if len(asked) > (most := _most(cluster, role)):
            raise ConfigError(
                f"{', '.join(asked)}: training stands still with more than {most} {role}s away "
                f"({role}_quorum = {_quorum(cluster, role)} of {len(_members(cluster, role))}): "
                + ("take fewer at once" if most else "there is no better moment than another")
            )


def reasons(cluster: Cluster, found: Mapping[str, Status], nodes: Sequence[str]) -> Iterator[str]:
    """Why nodes should not be stopped now; nothing if they can be.

    Args:
        cluster: The cluster.
        found: The status of each node that was asked.
        nodes: Who is to be stopped.
    """
    missing = away(cluster, found)
    for role in (Role.SERVER, Role.WORKER):
        members = _members(cluster, role)
        if role is Role.WORKER and is_done(cluster, found):
            continue
        gone = [node for node in members if node in missing or node in nodes]
        if len(gone) > (most := _most(cluster, role)) and not set(members).isdisjoint(nodes):
            besides = [f"{node} {missing[node]}" for node in gone if node not in nodes]
            yield f"{', '.join(besides)}, and only {most} of {len(members)} {role}s may be away"


def away(cluster: Cluster, found: Mapping[str, Status]) -> dict[str, str]:
    """Nodes that do not take part now, and how that shows.

    What a node says of itself may be a lie, and so may be what it says of others: that a node is
    silent counts once more servers say so than may lie.

    Args:
        cluster: The cluster.
        found: The status of each node that was asked.
    """
    missing = {}
    for node in (*cluster.servers, *cluster.workers):
        answer = found.get(node)
        if answer is not None and "error" in answer:
            missing[node] = "does not answer"
        elif answer is not None and answer.get("ready") is not True:
            missing[node] = "is not in step"
        else:
            witnesses = [s for s in cluster.servers if s != node and _misses(found.get(s), node)]
            if len(witnesses) > cluster.f_servers:
                missing[node] = f"is silent (so say {', '.join(witnesses)})"
    if not any("error" not in answer for answer in found.values()):
        # Those without HTTP are seen by others' eyes alone.
        missing |= dict.fromkeys((*cluster.servers, *cluster.workers), "is seen by nobody")
    return missing


def _misses(answer: Status | None, node: str) -> bool:
    """Whether a node says that it hears nothing of another, or never has."""
    silent, peers = (answer or {}).get("silent"), (answer or {}).get("peers")
    seen = peers.get(node) if isinstance(peers, dict) else None
    never = isinstance(seen, dict) and seen.get("last_seen_seconds") is None
    return never or (isinstance(silent, list) and node in silent)


def is_done(cluster: Cluster, found: Mapping[str, Status]) -> bool:
    """Whether training has ended, so that no worker is needed: more servers say so than may lie."""
    done = [server for server in cluster.servers if found.get(server, {}).get("done") is True]
    return len(done) > cluster.f_servers


def _left(cluster: Cluster, found: Mapping[str, Status], nodes: Sequence[str]) -> str:
    """How many more of each role may then be away."""
    missing, words = away(cluster, found), []
    for role in (Role.SERVER, Role.WORKER):
        gone = [n for n in _members(cluster, role) if n in missing or n in nodes]
        words.append(f"{max(_most(cluster, role) - len(gone), 0)} {role}s")
    return f"then {' and '.join(words)} more may be away"


def _members(cluster: Cluster, role: Role) -> tuple[str, ...]:
    return cluster.servers if role is Role.SERVER else cluster.workers


def _quorum(cluster: Cluster, role: Role) -> int:
    return cluster.server_quorum if role is Role.SERVER else cluster.worker_quorum


def _most(cluster: Cluster, role: Role) -> int:
    """How many of a role may be away: f of them, unless the quorum is smaller than n - f."""
    return len(_members(cluster, role)) - _quorum(cluster, role)
