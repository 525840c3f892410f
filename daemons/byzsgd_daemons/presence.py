"""Which peers of a node are silent, and which it cannot send to: told when that changes.

Silence is measured by the node's own pace, not by the clock alone: a peer is silent once it has
said nothing for ``SILENT_SECONDS`` *and* while the node has finished ``SILENT_STEPS`` times as many
steps as a correct peer may be quiet for. So nobody is silent for computing long where everybody
does, and a node that stands still calls nobody silent: whom it waits for is said elsewhere.
"""

from collections import Counter
from dataclasses import dataclass
from math import inf

from byzsgd.cluster import Role, Variant
from byzsgd.protocol import Node
from byzsgd.transport import Statistics

SILENT_SECONDS = 2.0
"""Least time without a message after which a peer is silent; with a look every half second it is
said within five."""

SILENT_STEPS = 3.0
"""Times as many steps as a correct peer may be quiet for."""

UNSENT_AFTER_SECONDS = 1.0
"""Time over which messages are dropped before that is worth a word: a burst is not."""

UNSENT_SECONDS = 3.0
"""Time without a message dropped after which a peer that speaks can be sent to again."""

TOLD_SECONDS = 10.0
"""Least time between two lines about a peer: one that comes and goes does not fill the log."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A line for the log about a peer."""

    peer: str
    sentence: str
    worse: bool
    """Whether things got worse, or better again."""


@dataclass(slots=True)
class _Dropped:
    """Messages dropped for a peer."""

    count: int = 0
    """Since the start."""
    first: float = inf
    """When those began that it could not be sent, until it reads again."""
    last: float = -inf
    """When there last were any."""


class Presence:
    """What a node knows of its peers' presence; ``look`` now and then."""

    def __init__(self, node: Node) -> None:
        """Watch the servers and workers that a node hears of.

        Args:
            node: The state machine; it is read only.
        """
        self.silent: frozenset[str] = frozenset()
        """Peers that were there and say nothing any more."""
        self.unsent: frozenset[str] = frozenset()
        """Peers that messages were dropped for a moment ago."""
        self._node = node
        cluster = node.cluster
        # Workers neither hear one another nor send to one another.
        peers = cluster.servers
        if cluster.role(node.identity) is Role.SERVER:
            peers += cluster.workers
        self._peers = [peer for peer in peers if peer != node.identity]
        self._heard: dict[str, tuple[float, int]] = {}
        """When each peer was last heard of, and the node's steps by then."""
        self._dropped: dict[str, _Dropped] = {}
        self._told: dict[tuple[str, str], tuple[bool, float]] = {}
        """What was last told of a peer, and when."""

    def look(self, statistics: Statistics, now: float) -> list[Notice]:
        """What has changed since the last look.

        Args:
            statistics: The transport's counters.
            now: The clock that the node's ``now`` comes from.
        """
        self.silent = frozenset(peer for peer in self._peers if self._is_silent(peer, now))
        dropped = Counter[str]()
        for (peer, _), count in statistics.dropped.items():
            dropped[peer] += count
        self.unsent = frozenset(p for p in self._peers if self._is_unsent(p, dropped[p], now))
        notices = []
        for peer in self._peers:
            if self._changes("silent", peer, peer in self.silent, now):
                notices.append(self._of_silence(peer, now))
            if self._changes("unsent", peer, peer in self.unsent, now):
                notices.append(self._of_sending(peer, statistics))
        return notices

    def _is_silent(self, peer: str, now: float) -> bool:
        seen, steps = self._node.last_seen.get(peer, -inf), self._node.progress.steps
        if seen == -inf or self._node.done:
            return False  # Who never came is waited for, or missed in the margin.
        if self._heard.get(peer, (-inf, 0))[0] < seen:
            self._heard[peer] = seen, steps
        made = steps - self._heard[peer][1]
        return now - seen > SILENT_SECONDS and made >= SILENT_STEPS * self._steps_between(peer)

    def _steps_between(self, peer: str) -> float:
        """The node's steps from one message of a correct peer to the next, at most."""
        node = self._node
        if node.cluster.role(node.identity) is Role.SERVER:
            if node.cluster.role(peer) is Role.WORKER:
                return 1
            gathers = node.progress.gathers
            return node.progress.steps / gathers if gathers else inf
        # There a worker hears of one server a step.
        return node.cluster.n_servers if node.cluster.variant is Variant.SYNCHRONOUS else 1

    def _is_unsent(self, peer: str, count: int, now: float) -> bool:
        seen = self._node.last_seen.get(peer, -inf)
        dropped = self._dropped.setdefault(peer, _Dropped())
        if now - dropped.last >= UNSENT_SECONDS and seen > dropped.last:
            dropped.first = inf
        if count > dropped.count and seen > -inf:  # Nothing can be sent before it is there.
            dropped.first, dropped.last = min(dropped.first, now), now
        dropped.count = count
        return dropped.last - dropped.first >= UNSENT_AFTER_SECONDS

    def _changes(self, what: str, peer: str, state: bool, now: float) -> bool:
        """Whether a state is another than was told, and may be told now."""
        told, when = self._told.get((what, peer), (False, -inf))
        if state == told or now - when < TOLD_SECONDS:
            return False
        self._told[what, peer] = state, now
        return True

    def _of_silence(self, peer: str, now: float) -> Notice:
        role = self._node.cluster.role(peer)
        reserve = f"the reserve of {role}s is {self._reserve(role)}"
        if peer in self.silent:
            seconds = now - self._node.last_seen[peer]
            return Notice(peer, f"{peer} is silent: last seen {seconds:.0f} s ago; {reserve}", True)
        return Notice(peer, f"{peer} is back; {reserve}", False)

    def _of_sending(self, peer: str, statistics: Statistics) -> Notice:
        if peer not in self.unsent:
            return Notice(peer, f"can send to {peer} again", False)
        if self._node.cluster.role(peer) is Role.WORKER:
            reason = "it is away, or its queue is full"  # Servers do not dial workers.
        elif peer in statistics.connected:
            reason = "its queue is full"
        else:
            reason = "there is no connection"
        return Notice(peer, f"cannot send to {peer}: {reason}", True)

    def _reserve(self, role: Role | None) -> int:
        """How many more of a role may fall silent before nothing goes on; below 0: too many are."""
        node, cluster = self._node, self._node.cluster
        members = cluster.servers if role is Role.SERVER else cluster.workers
        quorum = cluster.server_quorum if role is Role.SERVER else cluster.worker_quorum
        there = {peer for peer in members if peer in node.last_seen} - self.silent
        return len(there | {node.identity} & set(members)) - quorum
