"""The floor of a step: raw pyzmq with CURVE, whose nodes say what ours say and compute nothing.

    python -m benchmarks.step_zmq CLUSTER ID

One node of the asynchronous variant with T = 1, with blocking sockets of the same kinds and
messages of the same sizes. Nothing is decoded, checked, aggregated, repeated or guarded. A line on
standard input is answered with the step and the CPU seconds so far; its end ends the node.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import zmq

from byzsgd.cluster import Role
from byzsgd.messages import Gradient
from byzsgd.transport import keys
from byzsgd.wire import BOOT_BYTES, encode
from byzsgd_daemons.config import read_cluster

D = 10
"""Coordinates of a vector."""

STEP_BYTES = 8
GRADIENT, GATHER, MODEL = b"gradient", b"gather--", b"model---"


class Node:
    """The sockets of a node, and how many votes it has for which steps."""

    def __init__(self, file: Path, identity: str) -> None:
        self.cluster = read_cluster(file)
        self.step = 0
        self.votes: Counter[tuple[bytes, int]] = Counter()
        self._public = {node.id: node.public_key.encode() for node in self.cluster.nodes}
        secret = keys.read_secret(file.parent / "keys" / f"{identity}.key").encode()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._poller.register(sys.stdin, zmq.POLLIN)
        header, payload = encode(Gradient(0, np.zeros(D, np.float32)), bytes(BOOT_BYTES))
        self._padding = bytes(len(header) - STEP_BYTES - len(MODEL))
        self._payload = zmq.Frame(payload)
        self._own = self._public[identity], secret
        self.is_server = self.cluster.role(identity) is Role.SERVER
        if self.is_server:
            self._listen(identity)
        self._dealers = []
        for server in self.cluster.servers:
            if server == identity:
                continue
            node = self.cluster.node(server)
            assert node is not None
            self._dealers.append(self._dial(zmq.DEALER, server, node.request_endpoint))
            if not self.is_server:
                subscriber = self._dial(zmq.SUB, server, node.publish_endpoint)
                subscriber.subscribe(b"")
                self._poller.register(subscriber, zmq.POLLIN)

    def _listen(self, identity: str) -> None:
        node = self.cluster.node(identity)
        assert node is not None
        self._publisher, router = self._socket(zmq.XPUB), self._socket(zmq.ROUTER)
        self._publisher.set(zmq.XPUB_VERBOSE, 1)
        for socket, (host, port) in (
            (self._publisher, node.publish_endpoint),
            (router, node.request_endpoint),
        ):
            socket.curve_server = True
            socket.bind(f"tcp://{host}:{port}")
        self._poller.register(router, zmq.POLLIN)

    def _dial(self, kind: int, server: str, endpoint: tuple[str, int]) -> "zmq.Socket[bytes]":
        socket = self._socket(kind)
        socket.curve_serverkey = self._public[server]
        socket.connect("tcp://{}:{}".format(*endpoint))
        return socket

    def _socket(self, kind: int) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.curve_publickey, socket.curve_secretkey = self._own
        return socket

    def start(self) -> None:
        """A server scatters once all workers have subscribed: else its model would be lost."""
        if self.is_server:
            for _ in range(self.cluster.n_workers):
                self._publisher.recv()
            self.publish()

    def publish(self) -> None:
        """Send the model of this step to all workers."""
        first, payload = self._frames(MODEL)
        self._publisher.send_multipart([b"m", first, payload], copy=False)

    def send(self, kind: bytes) -> None:
        """Send a vote for this step to all other servers."""
        for dealer in self._dealers:
            dealer.send_multipart(self._frames(kind), copy=False)

    def _frames(self, kind: bytes) -> tuple[zmq.Frame, zmq.Frame]:
        header = self.step.to_bytes(STEP_BYTES, "big") + kind + self._padding
        return zmq.Frame(header), self._payload

    def wait(self) -> bool:
        """Take in what came; False at the end of standard input."""
        for socket, _ in self._poller.poll():
            if socket == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return False
                self._tell()
            else:
                self._read(socket)
        return True

    def _read(self, socket: "zmq.Socket[bytes]") -> None:
        try:
            while True:
                *_, header, _ = socket.recv_multipart(zmq.DONTWAIT, copy=False)
                step = int.from_bytes(header.bytes[:STEP_BYTES], "big")
                if step >= self.step:
                    self.votes[header.bytes[STEP_BYTES : STEP_BYTES + len(MODEL)], step] += 1
        except zmq.Again:
            pass

    def _tell(self) -> None:
        sys.stdout.write(json.dumps([self.step, time.process_time()]) + "\n")
        sys.stdout.flush()

    def next_step(self, step: int) -> None:
        """Go on there, and forget all votes for earlier steps."""
        self.step = step
        for kind, voted in [each for each in self.votes if each[1] < step]:
            del self.votes[kind, voted]


def serve(node: Node) -> None:
    """A server's steps: gradients, a gather, the next model."""
    gathers = False
    while node.wait():
        while True:
            if not gathers and node.votes[GRADIENT, node.step] >= node.cluster.worker_quorum:
                gathers = True
                node.send(GATHER)
            elif gathers and node.votes[GATHER, node.step] + 1 >= node.cluster.server_quorum:
                gathers = False
                node.next_step(node.step + 1)
                node.publish()
            else:
                break


def work(node: Node) -> None:
    """A worker's steps: models, a gradient."""
    while node.wait():
        ready = [
            step for (_, step), count in node.votes.items() if count >= node.cluster.server_quorum
        ]
        if ready:
            node.next_step(max(ready))
            node.send(GRADIENT)
            node.next_step(node.step + 1)


def main() -> None:
    node = Node(Path(sys.argv[1]), sys.argv[2])
    node.start()
    (serve if node.is_server else work)(node)


if __name__ == "__main__":
    main()
