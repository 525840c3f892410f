"""gRPC, unary calls of plain bytes, as Flower sends what it has serialized; no encryption.

The leaves are the clients: they fetch a message from the centre, or put one there, and ``window``
calls of each are under way. Runs in the peers' environment.
"""

import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import grpc
from benchmarks.burst import Part, cpu_seconds, report, say

LIMITLESS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Centre:
    """The server, and what it counts: every call is one message."""

    def __init__(self, part: Part) -> None:
        self._payload = bytes(part.payload_bytes) if part.centre_sends else b""
        self._calls = threading.Semaphore(0)
        server = grpc.server(ThreadPoolExecutor(2 * len(part.leaves)), options=LIMITLESS)
        handler = grpc.unary_unary_rpc_method_handler(self._call)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("burst", {"call": handler}),)
        )
        server.add_insecure_port(f"{part.host}:{part.port}")
        server.start()
        self._leaves = len(part.leaves)
        self.server = server

    def _call(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        self._calls.release()
        return self._payload

    def burst(self, count: int) -> None:
        for _ in range(count * self._leaves):
            self._calls.acquire()


class Leaf:
    """A client."""

    def __init__(self, part: Part) -> None:
        self._request = b"" if part.centre_sends else bytes(part.payload_bytes)
        self._answer_bytes = part.payload_bytes if part.centre_sends else 0
        self._window = part.window
        channel = grpc.insecure_channel(f"{part.host}:{part.port}", options=LIMITLESS)
        grpc.channel_ready_future(channel).result(60)
        self._call = channel.unary_unary("/burst/call")

    def burst(self, count: int) -> None:
        calls = deque[grpc.Future]()
        for _ in range(count):
            if len(calls) == self._window:
                self._end(calls.popleft())
            calls.append(self._call.future(self._request))
        while calls:
            self._end(calls.popleft())

    def _end(self, call: grpc.Future) -> None:
        assert len(call.result()) == self._answer_bytes


def main() -> None:
    """Take part in bursts until the parent closes the pipe."""
    part = Part.from_json(sys.argv[1])
    process = Centre(part) if part.is_centre else Leaf(part)
    say()
    for line in sys.stdin:
        began, cpu = time.monotonic(), cpu_seconds()
        process.burst(int(line))
        report(began, time.monotonic(), cpu_seconds() - cpu)


if __name__ == "__main__":
    main()
