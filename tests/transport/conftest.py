"""A cluster on loopback ports, transports of its nodes, and what their handlers were told."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
import zmq

from byzsgd.cluster import Cluster
from byzsgd.messages import Message, Reason
from byzsgd.transport import ZeroMQ, keys

PATIENCE_SECONDS = 120.0
"""Far above what anything here takes: only a wait that would be for ever runs into it."""

REPEAT_SECONDS = 0.05
"""A publication may be lost to a subscriber that has just come, so it is repeated."""


@dataclass
class Recorder:
    """Handlers that remember, and let a test wait for what they were told."""

    received_: list[tuple[str, Message]] = field(default_factory=list)
    refused_: list[tuple[str, Reason, str]] = field(default_factory=list)
    connected_: list[str] = field(default_factory=list)
    disconnected_: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def received(self, peer: str, message: Message) -> None:
        self.received_.append((peer, message))
        self.changed.set()

    def refused(self, peer: str, reason: Reason, detail: str) -> None:
        self.refused_.append((peer, reason, detail))
        self.changed.set()

    def connected(self, peer: str) -> None:
        self.connected_.append(peer)
        self.changed.set()

    def disconnected(self, peer: str) -> None:
        self.disconnected_.append(peer)
        self.changed.set()

    async def wait(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds that what this recorder is told can change."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def message(self, kind: type[Message]) -> tuple[str, Message]:
        """Wait for a message of a kind, and take the first one away, with its sender."""
        await self.wait(lambda: any(isinstance(message, kind) for _, message in self.received_))
        first = next(pair for pair in self.received_ if isinstance(pair[1], kind))
        self.received_.remove(first)
        return first

    async def repeat_until(
        self, condition: Callable[[], object], action: Callable[[], object]
    ) -> None:
        """Do something again and again until a condition holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self.changed.clear()
                action()
                with suppress(TimeoutError):
                    async with asyncio.timeout(REPEAT_SECONDS):
                        await self.changed.wait()


@dataclass
class Net:
    """Two servers, two workers and an operator, with keys and free ports."""

    keys: dict[str, keys.KeyPair]
    cluster: Cluster

    def port(self, server: str) -> int:
        """The port that a server publishes on; the next one takes requests."""
        node = self.cluster.node(server)
        assert node is not None
        return node.publish_endpoint[1]

    def with_key(self, identity: str, public_key: str) -> Cluster:
        """The cluster as a node sees it that was given another key for one of them."""
        nodes = tuple(
            replace(node, public_key=public_key) if node.id == identity else node
            for node in self.cluster.nodes
        )
        return replace(self.cluster, nodes=nodes)

    def transport(
        self,
        identity: str,
        d: int,
        recorder: Recorder,
        cluster: Cluster | None = None,
        buffers: int = 0,
    ) -> ZeroMQ:
        """A transport that is not open yet."""
        members, secret = cluster or self.cluster, self.keys[identity].secret
        return ZeroMQ(identity, members, secret, d, recorder, buffers=buffers, io_threads=1)

    @asynccontextmanager
    async def running(
        self, identity: str, *, d: int = 3, cluster: Cluster | None = None, buffers: int = 0
    ) -> AsyncIterator[tuple[ZeroMQ, Recorder]]:
        """A transport that is open and receives."""
        recorder = Recorder()
        transport = self.transport(identity, d, recorder, cluster, buffers)
        await transport.open()
        run = asyncio.create_task(transport.run())
        try:
            yield transport, recorder
        finally:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run
            transport.close()


@dataclass
class Outsiders:
    """Plain sockets, for whatever is no transport of ours: the test speaks for them."""

    net: Net
    context: "zmq.Context[zmq.Socket[bytes]]"
    sockets: "list[zmq.Socket[bytes]]" = field(default_factory=list)

    def socket(self, kind: int) -> "zmq.Socket[bytes]":
        """A socket that is closed with the test."""
        socket = self.context.socket(kind)
        socket.linger = 0
        self.sockets.append(socket)
        return socket

    def monitor(self, socket: "zmq.Socket[bytes]", events: int) -> "zmq.Socket[bytes]":
        """Tells of a socket's connections, and is closed with the test."""
        monitor = socket.get_monitor_socket(events)
        self.sockets.append(monitor)
        return monitor

    def dial(
        self,
        kind: int,
        server: str,
        pair: keys.KeyPair,
        *,
        routing_id: bytes = b"",
        topic: bytes = b"",
    ) -> "zmq.Socket[bytes]":
        """A DEALER or a SUB to a server, with any keys."""
        dialled = self.socket(kind)
        dialled.curve_publickey = pair.public.encode()
        dialled.curve_secretkey = pair.secret.encode()
        dialled.curve_serverkey = self.net.keys[server].public.encode()
        if routing_id:
            dialled.routing_id = routing_id
        if kind == zmq.SUB:
            dialled.subscribe(topic)
        dialled.connect(f"tcp://127.0.0.1:{self.net.port(server) + (kind == zmq.DEALER)}")
        return dialled


def _free_ports(keep: ExitStack) -> Iterator[int]:
    """Ports that are free together with the next one, and nobody else's until ``keep`` ends.

    They lie below those of local clusters, and far below those that the system gives out.
    """
    for port in range(10000 + os.getpid() % 400 * 20, 20000, 2):
        with ExitStack() as taken:
            pair = [taken.enter_context(socket.socket()) for _ in range(2)]
            try:
                for offset, each in enumerate(pair):
                    each.bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            for each in pair:
                # Whoever sets this as well, as ZeroMQ does, may listen there from now on.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keep.push(taken.pop_all())
        yield port


@pytest.fixture
def net() -> Iterator[Net]:
    with ExitStack() as keep:
        yield _net(_free_ports(keep))


def _net(ports: Iterator[int]) -> Net:
    roles = {"s1": "server", "s2": "server", "w1": "worker", "w2": "worker", "op": "operator"}
    pairs = {identity: keys.generate() for identity in roles}
    nodes = [
        {"id": identity, "role": role, "public_key": pairs[identity].public}
        | ({"address": f"127.0.0.1:{next(ports)}"} if role == "server" else {})
        for identity, role in roles.items()
    ]
    mapping = {"f_servers": 0, "f_workers": 0, "task": "digits", "nodes": nodes}
    return Net(pairs, Cluster.from_mapping(mapping))


@pytest.fixture
def outsiders(net: Net) -> Iterator[Outsiders]:
    with zmq.Context() as context:
        outsiders = Outsiders(net, context)
        yield outsiders
        for socket in outsiders.sockets:
            socket.close()
