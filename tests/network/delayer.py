"""Holds up packets: ``delayer.py QUEUE MILLISECONDS``, run where the NFQUEUE is.

For kernels without netem. The kernel keeps the packets; what comes here is a note of each, and
what goes back, once its time is up, is leave to pass for all up to it.
"""

import select
import socket
import struct
import sys
import time
from collections import deque

NETLINK_NETFILTER, SOL_NETLINK, NETLINK_NO_ENOBUFS = 12, 270, 5
SO_RCVBUFFORCE = 33
SUBSYSTEM = 3 << 8
PACKET, CONFIG, VERDICT_UP_TO = SUBSYSTEM | 0, SUBSYSTEM | 2, SUBSYSTEM | 3
REQUEST, ACKNOWLEDGE = 1, 4
PACKET_HEADER = 1
VERDICT = 2
BIND, NOTES_ONLY, ACCEPT = 1, 1, 1
QUEUE_PACKETS = 1 << 16
KEEP_SEGMENTS = 1 << 2
"""Large packets that the network card would cut stay whole."""


def attribute(kind: int, body: bytes) -> bytes:
    """A netlink attribute, padded to a multiple of four."""
    return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)


class Queue:
    """One of the kernel's packet queues."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 23)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
        self._socket.bind((0, 0))
        self._configure(attribute(1, struct.pack(">BxH", BIND, socket.AF_INET)))
        self._configure(attribute(2, struct.pack(">IB", 0, NOTES_ONLY)))
        self._configure(attribute(3, struct.pack(">I", QUEUE_PACKETS)))
        flags = struct.pack(">I", KEEP_SEGMENTS)
        self._configure(attribute(5, flags) + attribute(4, flags))

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def packets(self) -> list[int]:
        """The numbers of the packets that a note came of; waits for one."""
        data, found = self._socket.recv(1 << 20), []
        while data:
            length, kind = struct.unpack_from("=IH", data)
            # The packet's header is the first attribute of a note, and its number comes first.
            if kind == PACKET and struct.unpack_from("=H", data, 22)[0] == PACKET_HEADER:
                found.append(struct.unpack_from(">I", data, 24)[0])
            data = data[length + -length % 4 :]
        return found

    def let_pass(self, packet: int) -> None:
        """Let a packet pass, and all before it."""
        self._send(VERDICT_UP_TO, 0, attribute(VERDICT, struct.pack(">II", ACCEPT, packet)))

    def _configure(self, body: bytes) -> None:
        self._send(CONFIG, ACKNOWLEDGE, body)
        error = -struct.unpack_from("=i", self._socket.recv(1 << 12), 16)[0]
        if error:
            raise OSError(error, "no packet queue")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        header = struct.pack("=IHHII", 20 + len(body), kind, REQUEST | flags, 0, 0)
        self._socket.send(header + struct.pack(">BBH", 0, 0, self._number) + body)


def main(number: int, seconds: float) -> None:
    """Delay packets for ever."""
    queue = Queue(number)
    waiting: deque[tuple[float, int]] = deque()
    print("ready", flush=True)
    while True:
        patience = max(waiting[0][0] - time.monotonic(), 0.0) if waiting else None
        if select.select([queue], [], [], patience)[0]:
            due = time.monotonic() + seconds
            waiting.extend((due, packet) for packet in queue.packets())
        passed, now = None, time.monotonic()
        while waiting and waiting[0][0] <= now:
            passed = waiting.popleft()[1]
        if passed is not None:
            queue.let_pass(passed)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) / 1000)
