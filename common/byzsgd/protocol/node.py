"""The contract between a state machine and whoever runs it, and what both kinds of node share.

Rules of this file and of the two that build on it: all that changes a node's state lives here;
no chance, no clock but ``now``, no input or output; nothing that a peer says can raise.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from byzsgd.cluster import Cluster, Role, differing_keys
from byzsgd.messages import Hello, Message, Pull, Reason
from byzsgd.protocol.effects import Effect, Refuse, SaveCheckpoint, Send, Stop
from byzsgd.protocol.events import DeadlinePassed, Event, PeerConnected, Received, Result
from byzsgd.protocol.progress import Progress
from byzsgd.protocol.trace import Trace

PULL_AFTER = 1.0
"""Seconds without a quorum after which a node asks the peers it lacks. More than a round trip and
a gradient, or every step pays for pulls; 1.0 suits a LAN and models of a few million parameters."""

PULL_BACKOFF_MAX = 16
"""Waiting on, a node asks after 1, 2, 4, ... times ``pull_after``, at most this many: a peer that
is merely slow is not made slower."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whom a node waits for."""

    what: str
    """``models``, ``gradients`` or ``gather models``."""
    step: int
    have: int
    need: int
    lacking: tuple[str, ...]
    """Who has not answered yet, sorted; more of them than are needed may be missing."""
    since: float
    """Instant at which the wait began."""


class Node(ABC):
    """A node as a state machine: ``start`` once, then ``handle`` event by event."""

    def __init__(self, identity: str, cluster: Cluster, *, pull_after: float = PULL_AFTER) -> None:
        self.identity = identity
        self.cluster = cluster
        self.pull_after = pull_after
        """Seconds without a quorum after which the node asks the peers it lacks."""
        self.deadline = inf
        """Instant at which to hand in ``DeadlinePassed``."""
        self.step = 0
        """The learning step that the node is at."""
        self.done = False
        """Whether the last step is reached; the node still answers its peers."""
        self.progress = Progress()
        self.last_seen: dict[str, float] = {}
        """Instant of the last message from each peer."""
        self.differing: dict[str, tuple[str, ...]] = {}
        """Peers that run another cluster file, and the keys that differ."""
        self.trace = Trace()
        self._roles = {node.id: node.role for node in cluster.nodes}
        self._digests = cluster.digests()
        self._effects: list[Effect] = []
        self._waiting_since = 0.0
        self._asked = 0

    @abstractmethod
    def start(self, now: float) -> list[Effect]:
        """What to do first."""

    @abstractmethod
    def waiting(self) -> Waiting | None:
        """Whom the node waits for, or None while it works or is done."""

    @abstractmethod
    def phase(self) -> str:
        """The phase in one word, from a closed set."""

    @abstractmethod
    def _message(self, peer: str, role: Role, message: Message, now: float) -> None:
        """Take in a message that is no Hello."""

    @abstractmethod
    def _result(self, event: Result, now: float) -> None:
        """Take in the result of heavy work."""

    @abstractmethod
    def _overdue(self, now: float) -> None:
        """The quorum is late: ask those who lack. ``_asked`` says how many times before."""

    @abstractmethod
    def _connected(self, peer: str) -> None:
        """Say what else a new connection to a peer is a good moment for."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What to do about an event; never raises for what a peer sent.

        Args:
            event: What happened.
            now: Seconds of a clock that never goes back.
        """
        self._effects = []
        match event:
            case Received(peer, message):
                self._receive(peer, message, now)
            case PeerConnected(peer):
                self._send((peer,), Hello(self.step, self._digests))
                self._connected(peer)
            case DeadlinePassed():
                if now >= self.deadline:
                    self._overdue(now)
                    if self.deadline < inf:  # It may have ended the wait.
                        self._asked += 1
                        self._arm(now)
            case _:
                self._result(event, now)
        self.trace.record(now, event, self._effects)
        return self._effects

    def sentence(self, now: float) -> str:
        """What the node does or whom it waits for, as logs and /status say it."""
        waiting = self.waiting()
        if waiting is None:
            return f"{self.phase()} at step {self.step}"
        lacking = ", ".join(f"{peer} ({self._seen(peer, now)})" for peer in waiting.lacking)
        missing = waiting.need - waiting.have
        what = f"{waiting.need} {waiting.what} of step {waiting.step}"
        return f"waits for {missing} of {what}: {lacking}"

    def checkpoint(self) -> SaveCheckpoint | None:
        """What to put on disk before the process ends; None where nothing is worth keeping."""
        return None

    def validate(self) -> None:
        """Assert the invariants that hold between any two events."""
        assert self.step >= 0
        assert not self.done or self.deadline == inf

    def _seen(self, peer: str, now: float) -> str:
        seen = self.last_seen.get(peer)
        return "never seen" if seen is None else f"last seen {now - seen:.0f} s ago"

    def _receive(self, peer: str, message: Message, now: float) -> None:
        role = self._roles.get(peer)
        # Nobody hears itself: who bears the own identity is another node with its key.
        if role is None or peer == self.identity:
            self._refuse(peer, message, Reason.STRANGER)
            return
        self.last_seen[peer] = now
        if isinstance(message, Hello):
            self._hello(peer, role, message)
        elif peer in self.differing:
            self._refuse(peer, message, Reason.OTHER_CLUSTER)
        else:
            self._message(peer, role, message, now)

    def _hello(self, peer: str, role: Role, hello: Hello) -> None:
        if not hello.reply:
            self._send((peer,), Hello(self.step, self._digests, reply=True))
        differing = differing_keys(hello.digests, self._digests)
        if not differing:
            self.differing.pop(peer, None)
        elif role is not Role.OPERATOR:
            self.differing[peer] = differing
            self._refuse(peer, hello, Reason.OTHER_CLUSTER)
            self._judge_own_file()

    def _judge_own_file(self) -> None:
        # f_servers of the servers may lie about their file; of one more, one is correct.
        servers = [peer for peer in self.differing if self._roles[peer] is Role.SERVER]
        if len(servers) > self.cluster.f_servers:
            keys = sorted({key for peer in servers for key in self.differing[peer]})
            self._effects.append(
                Stop(
                    f"this node's cluster file differs from that of {', '.join(sorted(servers))} "
                    f"in: {', '.join(keys)}; give every node the same file"
                )
            )

    def _send(self, peers: Sequence[str], message: Message) -> None:
        if peers:
            self._effects.append(Send(tuple(peers), message))

    def _pull(self, peers: Sequence[str], step: int) -> None:
        self.progress.pulls += len(peers)
        self._send(peers, Pull(step))

    def _refuse(self, peer: str, message: Message, reason: Reason) -> None:
        self.progress.refused[peer, reason] += 1
        self._effects.append(Refuse(peer, message.step, reason))

    def _wait(self, now: float) -> None:
        """Begin to wait for a quorum."""
        self._waiting_since = now
        self._asked = 0
        self._arm(now)

    def _arm(self, now: float) -> None:
        self.deadline = now + self.pull_after * min(2**self._asked, PULL_BACKOFF_MAX)

    def _work(self, now: float) -> None:
        """A quorum is there: stop waiting."""
        self.progress.quorum_waits.observe(now - self._waiting_since)
        self.deadline = inf
