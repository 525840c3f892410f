"""A node's state as /status tells it."""

from math import isfinite
from typing import Any

from byzsgd import __version__
from byzsgd.checkpoint import Saves
from byzsgd.cluster import Role, Variant
from byzsgd.metrics import quorum_margins, refusals
from byzsgd.protocol import Node, ParameterServer, variance
from byzsgd.protocol.progress import Progress
from byzsgd.transport import Statistics
from byzsgd_daemons.presence import Presence

READY_WAIT_SECONDS = 10.0
"""A node that waits longer for a quorum is not in step with its peers."""


def snapshot(
    node: Node,
    statistics: Statistics,
    presence: Presence,
    now: float,
    saves: Saves | None = None,
) -> dict[str, Any]:
    """What /status shows, as plain JSON values.

    Args:
        node: The state machine.
        statistics: The transport's counters.
        presence: What is known of its peers' presence.
        now: The clock that the node's ``now`` comes from.
        saves: What became of a server's checkpoints; None where it keeps none.
    """
    progress, waiting = node.progress, node.waiting()
    role = node.cluster.role(node.identity)
    status: dict[str, Any] = {
        "id": node.identity,
        "role": role.value if role else None,
        "version": __version__,
        "cluster": node.cluster.digest().hex(),
        "phase": node.phase(),
        "sentence": node.sentence(now),
        "step": node.step,
        "steps": node.cluster.steps,
        "steps_done": progress.steps,
        "done": node.done,
        "ready": ready(node, now),
        "waiting": None
        if waiting is None
        else {
            "for": waiting.what,
            "step": waiting.step,
            "have": waiting.have,
            "need": waiting.need,
            "lacking": list(waiting.lacking),
            "seconds": round(now - waiting.since, 3),
        },
        "quorum_margin": quorum_margins(node, now),
        "silent": sorted(presence.silent),
        "unsent": sorted(presence.unsent),
        "peers": {
            member.id: _peer(node, member.id, member.role, statistics, now)
            for member in node.cluster.nodes
            if member.id != node.identity
        },
    }
    if isinstance(node, ParameterServer):
        drift = progress.drift
        status |= {
            "drift": {
                "max": drift.maximum,
                "median": drift.median,
                "relative": drift.relative,
                "contraction": drift.contraction,
            },
            "gathers": progress.gathers,
            "catch_ups": progress.catch_ups,
            "left_out": dict(sorted(progress.left_out.items())),
            "variance_ratio": progress.variance.ratio,
            "variance_condition": {
                "state": progress.variance.state.value,
                "since": progress.variance.since,
                "sentence": variance.sentence(progress.variance, node.cluster),
            },
            "checkpoint": None
            if saves is None
            else {
                "step": saves.step,
                "seconds": round(now - saves.at, 3),
                "error": saves.error,
            },
        }
    else:
        # JSON knows no NaN and no infinity.
        loss = progress.loss if progress.loss is not None and isfinite(progress.loss) else None
        status |= {"loss": loss, "skipped": progress.skipped}
    if node.cluster.variant is Variant.SYNCHRONOUS:
        status["missed"] = dict(sorted(progress.missed.items()))
        status["passed_over"] = sorted(progress.passed_over)
        if role is Role.WORKER:
            status |= _filters(progress)
    return status


def summary(node: Node, now: float) -> str:
    """A node in a line, as ``systemctl status`` shows it: its step and figure, and what it does."""
    progress = node.progress
    if isinstance(node, ParameterServer):
        figure = f", drift {progress.drift.median:.3g}" if progress.gathers else ""
    else:
        figure = "" if progress.loss is None else f", loss {progress.loss:.3g}"
    return f"step {node.step}{figure}: {node.sentence(now)}"


def _filters(progress: Progress) -> dict[str, Any]:
    """What workers of the synchronous variant count."""
    filtered = sorted(progress.filtered.items())
    return {
        "scatter_steps": progress.scatter_steps,
        "scatter_pulls": progress.scatter_pulls,
        "fallbacks": progress.fallbacks,
        "accepted": dict(sorted(progress.accepted.items())),
        "filtered": {f"{server} {which.value}": count for (server, which), count in filtered},
    }


def ready(node: Node, now: float) -> bool:
    """Whether the node is in step with its peers: it had a quorum, and is not long without one."""
    waiting = node.waiting()
    if node.done or waiting is None:
        return True
    started = node.progress.steps > 0 or node.progress.catch_ups > 0
    return started and now - waiting.since <= READY_WAIT_SECONDS


def _peer(node: Node, peer: str, role: Role, statistics: Statistics, now: float) -> dict[str, Any]:
    seen = node.last_seen.get(peer)
    refused = {
        reason.value: count
        for (who, reason), count in sorted(refusals(node, statistics).items())
        if who == peer
    }
    return {
        "role": role.value,
        # Who dials knows; who is dialled has only heard of its peers.
        "connected": peer in statistics.connected if role is Role.SERVER else None,
        "last_seen_seconds": None if seen is None else round(now - seen, 3),
        "dropped": sum(count for (who, _), count in statistics.dropped.items() if who == peer),
        "refused": refused,
        "differs_in": list(node.differing.get(peer, ())),
    }
