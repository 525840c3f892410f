"""What a hostile node knows and has: the cluster file, the keys of two nodes, and sockets."""

import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from tests.hostile import frames

from byzsgd.cluster import Cluster, Member

PACE_SECONDS = 0.2
"""What was not sent in time may be made up for, as far as this."""


@dataclass
class Field:
    """A cluster, the worker and the server in it that are hostile, and what they may use."""

    file: Path
    seconds: float
    """How long the attack takes."""
    count: int
    """What it sends, unless that takes longer."""
    d: int
    cluster: Cluster = field(init=False)
    context: "zmq.Context[zmq.Socket[bytes]]" = field(init=False)
    sent: int = 0
    """What was sent, in whatever the attack counts: messages or connections."""
    paced: int = 0
    """How much of it ``pace`` has taken into account."""
    due: float = 0.0
    """When more may be sent."""
    sockets: "list[zmq.Socket[bytes]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = Cluster.from_mapping(tomllib.loads(self.file.read_text()))
        self.context = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, 16_000)
        self.ends = time.monotonic() + self.seconds

    def begin(self) -> None:
        """Say that the attack begins now; it takes its seconds from here on."""
        self.ends = time.monotonic() + self.seconds
        print("begins", flush=True)

    @property
    def worker(self) -> str:
        """The hostile worker: the last one."""
        return self.cluster.workers[-1]

    @property
    def server(self) -> str:
        """The hostile server: the last one."""
        return self.cluster.servers[-1]

    @property
    def victims(self) -> list[Member]:
        """The other servers."""
        return [self.member(server) for server in self.cluster.servers[:-1]]

    def member(self, identity: str) -> Member:
        found = self.cluster.node(identity)
        assert found is not None
        return found

    def is_over(self) -> bool:
        return self.sent >= self.count or time.monotonic() >= self.ends

    def addresses(self, *names: str) -> list[tuple[str, int]]:
        """The victims' addresses of some kinds: ``publish_endpoint``, ``request_endpoint``."""
        return [getattr(node, name) for node in self.victims for name in names]

    def secret(self, identity: str) -> bytes:
        return (self.file.parent / "keys" / f"{identity}.key").read_bytes().strip()

    def socket(self, kind: int, identity: str, **options: int) -> "zmq.Socket[bytes]":
        """A socket with a member's key, or with ``stranger``'s."""
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.reconnect_ivl = 50
        for name, value in options.items():
            setattr(socket, name, value)
        if identity == "stranger":
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        else:
            socket.curve_publickey = self.member(identity).public_key.encode()
            socket.curve_secretkey = self.secret(identity)
        self.sockets.append(socket)
        return socket

    def dial(
        self, kind: int, identity: str, server: Member, *, key: bytes = b"", **options: int
    ) -> "zmq.Socket[bytes]":
        """A socket that dials a server, for its models (SUB, XSUB) or with requests."""
        socket = self.socket(kind, identity, **options)
        socket.curve_serverkey = key or server.public_key.encode()
        requests = kind == zmq.DEALER
        host, port = server.request_endpoint if requests else server.publish_endpoint
        socket.connect(f"tcp://{host}:{port}")
        return socket

    def dealers(self, identity: str, **options: int) -> "list[zmq.Socket[bytes]]":
        """A DEALER to each victim, with a worker's hello said."""
        dealers = [self.dial(zmq.DEALER, identity, node, **options) for node in self.victims]
        for dealer in dealers:
            dealer.send_multipart(frames.hello(0, self.cluster.digests()))
        return dealers

    def send(
        self, sockets: "Sequence[zmq.Socket[bytes]]", parts: Sequence[bytes], per_second: float
    ) -> None:
        """Send a message on each socket that takes it, no faster than so many a second in all."""
        for socket in sockets:
            try:
                socket.send_multipart(parts, zmq.DONTWAIT)
            except zmq.ZMQError:
                time.sleep(0.001)  # Its queue is full: the other side takes no more than that.
            else:
                self.sent += 1
        self.pace(per_second)

    def pace(self, per_second: float) -> None:
        """Sleep as long as what was sent since the last call may take at this rate."""
        now = time.monotonic()
        self.due = max(self.due, now - PACE_SECONDS) + (self.sent - self.paced) / per_second
        self.paced = self.sent
        time.sleep(max(self.due - now, 0.0))

    def rest(self, seconds: float) -> None:
        """Do nothing for a while, unless it is over before."""
        time.sleep(max(min(seconds, self.ends - time.monotonic()), 0.0))

    def drop_sockets(self, keep: int) -> None:
        """Close all but the newest sockets."""
        for socket in self.sockets[:-keep]:
            socket.close(0)
        self.sockets = self.sockets[-keep:]

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(0)
        self.context.term()
