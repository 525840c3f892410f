"""The contract of a transport: it carries messages between authenticated identities.

Whoever carries messages promises this:

1. The peer that a message is handed over with is the identity whose key its sender has proved,
   whatever the message or the connection claims.
2. Nothing blocks or grows because of a peer: what cannot be sent now is dropped and counted.
3. What a peer sends never raises: it becomes a message or a refusal.
4. Messages of one peer that come through one connection keep their order. Any may be lost, and a
   restarted peer may say again what it said before.
5. Handlers are called on the event loop, one at a time, and not after ``close``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from byzsgd.cluster import Cluster
from byzsgd.errors import ByzsgdError
from byzsgd.messages import Message, Reason

STRANGER = "stranger"
"""Stands for whoever holds a key that is not in the cluster file."""

Direction: TypeAlias = Literal["sent", "received"]

Boot: TypeAlias = bytes
"""Chance bytes that tell one life of a node from the next: it restarted, or went back to an earlier
step. Within a life the step of a correct server's models never falls."""


class TransportError(ByzsgdError):
    """An address that this machine does not let the node listen on or dial."""


class Handlers(Protocol):
    """Who is told what happens on a transport; all are quick and called on the event loop."""

    def received(self, peer: str, message: Message) -> None:
        """A message came. Its vector is nobody else's."""

    def refused(self, peer: str, reason: Reason, detail: str) -> None:
        """Something came that is no message, or somebody was turned away.

        Called once for every refused message, but at most once a second for refused connections;
        ``Statistics.refused`` has the exact numbers of both.
        """

    def connected(self, peer: str) -> None:
        """A server that this node dials is there, and has proved its key."""

    def disconnected(self, peer: str) -> None:
        """The connection to such a server is gone; the transport dials again by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a transport has counted since it was made; a snapshot."""

    messages: Mapping[tuple[str, Direction], int]
    """Messages by kind and direction; a published one counts once."""
    bytes: Mapping[tuple[str, Direction], int]
    """Bytes of these messages, before encryption and without routing."""
    dropped: Mapping[tuple[str, str], int]
    """Messages that were not sent, by peer and kind: the peer is away, or its queue is full. What
    a full queue loses of a publication is not known to the sender."""
    refused: Mapping[tuple[str, Reason], int]
    """What was refused before it was a message, by peer and reason: strangers, failed handshakes,
    logins that came too often, floods, and frames that cannot be read."""
    last_seen: Mapping[str, float]
    """The event loop's time at which each peer last sent anything."""
    boot: Mapping[str, Boot]
    """Of each peer; another one than before means that it lives a new life."""
    connected: frozenset[str]
    """Servers that this node dials and has a connection to."""


class Transport(Protocol):
    """Carries a node's messages: ``open``, then ``run`` until cancelled, then ``close``."""

    async def open(self) -> None:
        """Listen and begin to dial; returns at once, peers need not be there.

        Raises:
            TransportError: If an address cannot be used; nothing is left open then.
        """

    async def run(self) -> None:
        """Receive, and tell the handlers, until cancelled."""

    def send(self, peers: Sequence[str], message: Message) -> None:
        """Send a message to each of these peers that can be sent to now.

        Its vector must never change afterwards: it may still be on its way when this returns.
        """

    def publish(self, message: Message) -> None:
        """Send a message from a server to every worker that listens, and to nobody else.

        Its vector must never change afterwards: it may still be on its way when this returns.
        """

    def admit(self, cluster: Cluster) -> frozenset[str]:
        """From now on, count the keys of another version of the cluster file.

        Nothing counts any more that a key has sent which does not count any more.

        Args:
            cluster: As before, but for ``public_key`` and ``admitted`` of other nodes than this.

        Returns:
            The identities that this changes something for.
        """

    def new_life(self) -> None:
        """Put a new boot id on every message from here on, as a restart would."""

    def statistics(self) -> Statistics:
        """What has been counted so far."""

    def close(self) -> None:
        """Give back every socket, at once: what is still on its way is lost."""
