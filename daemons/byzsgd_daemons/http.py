"""/metrics, /healthz, /readyz and /status of one node.

Requests are served by threads of their own, and each asks the event loop for a snapshot: so no
thread ever reads a state that is being changed, and /healthz fails when the loop does not answer.
"""

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NoAnswer
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from byzsgd.transport import TransportError

ANSWER_SECONDS = 2.0
"""An event loop that takes longer to answer than this is not healthy."""

REQUEST_SECONDS = 5.0
"""A connection that says nothing for so long is closed."""

CLOSE_SECONDS = 0.1
"""The longest time that closing takes: it keeps the event loop waiting."""

Status = dict[str, Any]


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
        host, port = address
        if host.startswith("["):
            self.address_family = socket.AF_INET6
        super().__init__((host.strip("[]"), port), _Handler)

    def server_bind(self) -> None:
        """Listen, without asking the name service for a name that nobody needs."""
        TCPServer.server_bind(self)

    def on_loop(self, call: Callable[[], Any]) -> Any:
        """What a call returns that runs on the event loop; NoAnswer when that hangs."""

        async def run() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(ANSWER_SECONDS)

    def handle_error(self, *_request: object) -> None:
        """A request that broke off is nobody's concern; all else is a bug of ours."""
        if not isinstance(sys.exception(), OSError):
            logging.getLogger("byzsgd").error("a bug: no answer over HTTP", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            status, kind, body = self._answer(self.path.partition("?")[0])
        except (NoAnswer, CancelledError):
            status, kind = HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8"
            body = f"the event loop did not answer within {ANSWER_SECONDS:g} s\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            text = self.server.on_loop(lambda: generate_latest(self.server.registry))
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, text
        if path not in ("/healthz", "/readyz", "/status"):
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

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
