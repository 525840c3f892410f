"""/metrics, /healthz, /readyz and /status of one node.

Requests are served by threads of their own, and each asks the event loop for a snapshot: so no
thread ever reads a state that is being changed, and /healthz fails when the loop does not answer.

Whoever reaches the port may ask, so everything has a limit: connections in all and from one
address, the time and the bytes of a request, and the share of the event loop that answers take.
"""

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from math import inf
from socketserver import TCPServer
from threading import Lock, Thread
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from byzsgd.transport import TransportError

ANSWER_SECONDS = 2.0
"""An event loop that takes longer to answer than this is not healthy."""

REQUEST_SECONDS = 5.0
"""A connection that has not made a request, and taken its answer, within this is closed: also one
that sends a byte now and then."""

HEAD_BYTES_MAX = 8 * 1024
"""Of a request without its body, which none has here; what is longer is cut off and not read on."""

CONNECTIONS_MAX = 64
"""At once; each has a thread. Above it a new one is closed: who is served now, stays so."""

CONNECTIONS_PER_ADDRESS_MAX = 16
"""At once from one address, so that one machine that misbehaves shuts out nobody else."""

REST_FACTOR = 24
"""Times as long as an answer took, nothing is answered: HTTP costs 4 % of the loop at most."""

REST_SECONDS_MIN, REST_SECONDS_MAX = 0.01, 0.25
"""Limits of that rest: an answer that costs the loop nothing still costs a thread's time, and one
that was slow by chance keeps nobody waiting for long."""

SHARED_SECONDS = 0.25
"""Whoever has to wait for its turn may get an answer that another one got so long before."""

PATHS = ("/metrics", "/healthz", "/readyz", "/status")

CLOSE_SECONDS = 0.1
"""The longest time that closing takes: it keeps the event loop waiting."""

Status = dict[str, Any]

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type and body."""


@dataclass(slots=True)
class _Connection:
    """One that is open: where it comes from, and since when its next request may come."""

    address: str
    since: float


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        loop: asyncio.AbstractEventLoop,
        status: Callable[[], Status],
        registry: CollectorRegistry,
    ) -> None:
        self.loop = loop
        self.status = status
        self.registry = registry
        self.refused = 0
        self._lock = Lock()
        self._open: dict[socket.socket, _Connection] = {}
        self._turn = Lock()
        self._rests_until = 0.0
        self._answers: dict[str, tuple[float, Answer]] = {}
        self._busy_seconds = 0.0
        host, port = address
        if host.startswith("["):
            self.address_family = socket.AF_INET6
        super().__init__((host.strip("[]"), port), _Handler)

    def server_bind(self) -> None:
        """Listen, without asking the name service for a name that nobody needs."""
        TCPServer.server_bind(self)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection, which then takes it."""
        address = client_address[0]
        with self._lock:
            alike = sum(connection.address == address for connection in self._open.values())
            if alike >= CONNECTIONS_PER_ADDRESS_MAX or len(self._open) >= CONNECTIONS_MAX:
                self.refused += 1
                return False
            self._open[request] = _Connection(address, time.monotonic())
        return True

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and give back the room that it may have taken."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def awaits(self, request: Any) -> None:
        """Note that a connection may make its next request from now on."""
        with self._lock:
            self._open[request].since = time.monotonic()

    def service_actions(self) -> None:
        """Cut the connections whose time is up; called some ten times a second."""
        latest = time.monotonic() - REQUEST_SECONDS
        with self._lock:
            for request, connection in self._open.items():
                if connection.since < latest:
                    # Its thread wakes up to an end of file or an error, and closes it.
                    with suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def in_turn(self, path: str, answer: Callable[[], Answer]) -> Answer:
        """One answer at a time, and then a rest, the longer the longer the event loop was busy.

        The next request waits for the end of that rest; one that comes later does not wait at all.
        """
        must_wait = self._turn.locked()
        with self._turn:
            time.sleep(max(self._rests_until - time.monotonic(), 0.0))
            self._busy_seconds = 0.0
            at, last = self._answers.get(path, (-inf, None))
            try:
                if must_wait and last is not None and time.monotonic() - at < SHARED_SECONDS:
                    return last
                made = answer()
                if path in PATHS:
                    self._answers[path] = time.monotonic(), made
                return made
            finally:
                rest = max(REST_FACTOR * self._busy_seconds, REST_SECONDS_MIN)
                self._rests_until = time.monotonic() + min(rest, REST_SECONDS_MAX)

    def on_loop(self, call: Callable[[], Any]) -> Any:
        """What a call returns that runs on the event loop; NoAnswer when that hangs."""

        async def run() -> Any:
            began = time.monotonic()
            try:
                return call()
            finally:
                self._busy_seconds = time.monotonic() - began

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(ANSWER_SECONDS)

    def handle_error(self, *_request: object) -> None:
        """A request that broke off is nobody's concern; all else is a bug of ours."""
        if not isinstance(sys.exception(), OSError):
            logging.getLogger("byzsgd").error("a bug: no answer over HTTP", exc_info=True)


class _Head:
    """A request's head as a file that ends after so many bytes, whatever the client sends."""

    def __init__(self, file: BufferedIOBase) -> None:
        self.left = HEAD_BYTES_MAX
        self._file = file

    def readline(self, size: int) -> bytes:
        line = self._file.readline(min(size, self.left))
        self.left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self._head = _Head(self.rfile)
        self.rfile = self._head  # type: ignore[assignment]

    def handle_one_request(self) -> None:
        self._head.left = HEAD_BYTES_MAX
        self.server.awaits(self.request)
        super().handle_one_request()
        if not self._head.left:
            self.close_connection = True

    def do_GET(self) -> None:
        try:
            path = self.path.partition("?")[0]
            status, kind, body = self.server.in_turn(path, partial(self._answer, path))
        except (NoAnswer, CancelledError):
            status, kind = HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8"
            body = f"the event loop did not answer within {ANSWER_SECONDS:g} s\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str) -> Answer:
        if path == "/metrics":
            text = self.server.on_loop(lambda: generate_latest(self.server.registry))
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, text
        if path not in PATHS:
            return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not found\n"
        status = self.server.on_loop(self.server.status)
        if path == "/status":
            body = json.dumps(status, indent=1).encode() + b"\n"
            return HTTPStatus.OK, "application/json", body
        well = path == "/healthz" or status["ready"]
        code = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        return code, "text/plain; charset=utf-8", f"{status['sentence']}\n".encode()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not logged."""


class HttpServer:
    """Answers HTTP for one node until it is closed."""

    def __init__(
        self,
        address: tuple[str, int],
        status: Callable[[], Status],
        registry: CollectorRegistry,
    ) -> None:
        """Listen on an address; call it on the running event loop.

        Args:
            address: Host and port.
            status: The snapshot behind /status; ``ready`` and ``sentence`` are read from it.
            registry: What /metrics shows.

        Raises:
            TransportError: If the address cannot be listened on.
        """
        try:
            self._server = _Server(address, asyncio.get_running_loop(), status, registry)
        except OSError as error:
            raise TransportError(
                f"http {address[0]}:{address[1]}: cannot listen: {error.strerror}; "
                "give another address with --http, or stop what holds it"
            ) from None
        serve = partial(self._server.serve_forever, poll_interval=CLOSE_SECONDS)
        Thread(target=serve, name="http", daemon=True).start()

    @property
    def refused(self) -> int:
        """Connections that were closed at once, as too many were open."""
        return self._server.refused

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
