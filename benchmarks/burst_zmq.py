"""The floor: blocking pyzmq sockets, one frame a message, with the C library's allocator as it is.

PUB to SUB where the centre sends, DEALER to ROUTER where the leaves do; what is acknowledged goes
between DEALER and ROUTER. Nothing is checked or copied: what was received is dropped.
"""

import sys

import zmq
from benchmarks.burst import CENTRE, Part, Receiver, Sender, cpu_seconds, report, say


class Sockets:
    """The sockets of one process."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._payload = zmq.Frame(bytes(part.payload_bytes))
        if part.is_centre:
            self.requests = self._socket(zmq.ROUTER)
            self.requests.bind(f"tcp://{part.host}:{part.port + 1}")
            self._models = self._socket(zmq.PUB)
            self._models.bind(f"tcp://{part.host}:{part.port}")
        else:
            self.requests = self._socket(zmq.DEALER)
            self.requests.routing_id = part.name.encode()
            self.requests.connect(f"tcp://{part.host}:{part.port + 1}")
            self._models = self._socket(zmq.SUB)
            self._models.subscribe(b"")
            self._models.connect(f"tcp://{part.host}:{part.port}")

    @property
    def receiving(self) -> "zmq.Socket[bytes]":
        """The socket that messages come to."""
        return self.requests if self._part.is_centre else self._models

    def _socket(self, kind: int) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.linger = 0
        if self._part.encrypted:
            public, secret = self._part.keys[self._part.name]
            socket.curve_publickey, socket.curve_secretkey = public.encode(), secret.encode()
            if self._part.is_centre:
                socket.curve_server = True
            else:
                socket.curve_serverkey = self._part.keys[CENTRE][0].encode()
        return socket

    def send(self, number: int) -> None:
        """Send a message to all, or to the centre."""
        socket = self._models if self._part.is_centre else self.requests
        socket.send_multipart([number.to_bytes(8, "big"), self._payload], copy=False)

    def receive(self) -> tuple[str, int]:
        """Wait for a message: whose, and its number."""
        *route, number, _ = self.receiving.recv_multipart(copy=False)
        peer = route[0].bytes.decode() if route else CENTRE
        return peer, int.from_bytes(number.bytes, "big")

    def acknowledge(self, peer: str, number: int) -> None:
        """Say that a message has come."""
        route = [peer.encode()] if self._part.is_centre else []
        self.requests.send_multipart([*route, number.to_bytes(8, "big")])

    def acknowledgement(self) -> tuple[str, int]:
        """Wait to be told that a message has come."""
        *route, number = self.requests.recv_multipart()
        return route[0].decode() if route else CENTRE, int.from_bytes(number, "big")


def send(part: Part, sockets: Sockets) -> None:
    """Send bursts until the parent closes the pipe."""
    sender = Sender(part, sockets.send)
    while not sender.is_warm:
        sender.warm_up()
        while not sender.is_warm and sockets.requests.poll(1000 * part.repeat_seconds):
            sender.acknowledged(*sockets.acknowledgement())
    say()
    for line in sys.stdin:
        cpu = cpu_seconds()
        sender.start(int(line))
        while not sender.done:
            sender.acknowledged(*sockets.acknowledgement())
        report(sender.began, sender.ended, cpu_seconds() - cpu)


def receive(part: Part, sockets: Sockets) -> None:
    """Receive bursts until the parent closes the pipe."""
    receiver = Receiver(part)

    def one() -> None:
        peer, number = sockets.receive()
        receiver.got(peer, number)
        sockets.acknowledge(peer, number)

    say()
    poller = zmq.Poller()
    poller.register(sockets.receiving, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    while True:
        if sys.stdin.fileno() not in dict(poller.poll()):
            one()  # To warm up.
        elif line := sys.stdin.readline():
            cpu = cpu_seconds()
            receiver.start(int(line))
            while not receiver.done:
                one()
            report(receiver.began, receiver.ended, cpu_seconds() - cpu)
        else:
            break


def main() -> None:
    part = Part.from_json(sys.argv[1])
    (send if part.sends else receive)(part, Sockets(part))


if __name__ == "__main__":
    main()
