"""HTTP of a node over a real socket on loopback."""

import asyncio
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from byzsgd.transport import TransportError
from byzsgd_daemons import http as module
from byzsgd_daemons.http import HttpServer

PATIENCE_SECONDS = 60.0

SOON_SECONDS = 15.0
"""Far above what closing a connection takes."""

STATUS: dict[str, Any] = {"ready": True, "sentence": "scatter at step 3", "step": 3}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing ends only because it took too long, but where that is the test."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 2 * PATIENCE_SECONDS)
    monkeypatch.setattr(module, "REQUEST_SECONDS", 2 * PATIENCE_SECONDS)
    monkeypatch.setattr(module._Handler, "timeout", 2 * PATIENCE_SECONDS)


@dataclass
class Answer:
    """What came back."""

    status: int
    kind: str | None
    text: str


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("byzsgd_step", "Step.", registry=made).set(3)
    return made


def ask(server: HttpServer, path: str, method: str = "GET") -> Answer:
    """Ask over a connection of its own; blocks, so call it in a thread unless that is the test."""
    port = server._server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, response.getheader("Content-Type"), response.read().decode())
    finally:
        connection.close()


@contextmanager
def listening(
    status: Callable[[], dict[str, Any]] = lambda: STATUS, host: str = "127.0.0.1"
) -> Iterator[HttpServer]:
    server = HttpServer((host, 0), status, registry())
    try:
        yield server
    finally:
        server.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))


def answers(status: dict[str, Any], *paths: str) -> list[Answer]:
    found: list[Answer] = []

    async def main() -> None:
        with listening(lambda: status) as server:
            for path in paths:
                found.append(await asyncio.to_thread(ask, server, path))

    run(main)
    return found


def test_metrics_are_prometheus_text() -> None:
    """What the registry holds, in the format that Prometheus asks for."""
    [answer] = answers(STATUS, "/metrics")

    assert answer.status == 200
    assert answer.kind is not None
    assert answer.kind.startswith("text/plain; version=")
    assert "byzsgd_step 3.0" in answer.text.splitlines()


def test_status_is_json() -> None:
    """The snapshot as it is."""
    [answer] = answers(STATUS, "/status?pretty")

    assert (answer.status, answer.kind) == (200, "application/json")
    assert json.loads(answer.text) == STATUS


def test_a_node_in_step_is_healthy_and_ready() -> None:
    """And says what it does."""
    health, readiness = answers(STATUS, "/healthz", "/readyz")

    assert health == readiness == Answer(200, "text/plain; charset=utf-8", "scatter at step 3\n")


def test_a_node_that_waits_is_healthy_and_not_ready() -> None:
    """And says whom it waits for: a restart would not help it."""
    waits = {"ready": False, "sentence": "waits for 1 of 4 models of step 3: s2 (never seen)"}
    health, readiness = answers(waits, "/healthz", "/readyz")

    assert (health.status, readiness.status) == (200, 503)
    assert health.text == readiness.text == f"{waits['sentence']}\n"


@pytest.mark.parametrize("path", ["/", "/metricsx", "/status/", "/../etc/passwd", "*"])
def test_there_is_nothing_else(path: str) -> None:
    """Any other path is not found."""
    [answer] = answers(STATUS, path)

    assert (answer.status, answer.text) == (404, "not found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed_over_http(method: str) -> None:
    """Only GET is answered."""

    async def main() -> None:
        with listening() as server:
            answer = await asyncio.to_thread(ask, server, "/status", method)
            assert answer.status == 501

    run(main)


def test_a_state_is_read_on_the_event_loop() -> None:
    """Never by the thread that answers: nothing changes while it is read."""
    seen = []

    def status() -> dict[str, Any]:
        seen.append(asyncio.get_running_loop())
        return STATUS

    async def main() -> None:
        with listening(status) as server:
            await asyncio.to_thread(ask, server, "/status")
        assert seen == [asyncio.get_running_loop()]

    run(main)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/status", "/metrics"])
def test_a_hung_event_loop_is_not_healthy(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is answered all the same, and says so."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)

    async def main() -> None:
        with listening() as server:
            hung = ask(server, path)  # Blocks the loop until the answer is there.
            assert hung.status == 503
            assert hung.text == "the event loop did not answer within 0.05 s\n"

    run(main)


def test_one_connection_may_ask_again() -> None:
    """As Prometheus does."""

    async def main() -> None:
        with listening() as server:
            port = server._server.server_address[1]

            def twice() -> list[int]:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                codes = []
                for path in ("/healthz", "/x", "/metrics"):
                    connection.request("GET", path)
                    response = connection.getresponse()
                    response.read()
                    codes.append(response.status)
                connection.close()
                return codes

            assert await asyncio.to_thread(twice) == [200, 404, 200]

    run(main)


def test_a_request_that_breaks_off_leaves_no_trace(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor does one that is no HTTP at all; the next one is answered."""

    async def main() -> None:
        with listening() as server:
            port = server._server.server_address[1]

            def rudely() -> None:
                for words in (b"", b"GET /sta", b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n" * 9):
                    with socket.create_connection(("127.0.0.1", port)) as connection:
                        connection.sendall(words)

            await asyncio.to_thread(rudely)
            assert (await asyncio.to_thread(ask, server, "/healthz")).status == 200

    run(main)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_bug_in_an_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback; the connection ends without an answer, and the node goes on."""

    def status() -> dict[str, Any]:
        raise KeyError("a bug")

    async def main() -> None:
        with listening(status) as server:
            with pytest.raises(http.client.RemoteDisconnected):
                await asyncio.to_thread(ask, server, "/status")
            assert (await asyncio.to_thread(ask, server, "/metrics")).status == 200

    run(main)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "a bug: no answer over HTTP"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_an_address_that_is_taken_is_named_with_the_remedy() -> None:
    """As a TransportError: one line for the operator."""

    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(TransportError) as error:
                HttpServer(("127.0.0.1", port), lambda: STATUS, registry())
        assert str(error.value) == (
            f"http 127.0.0.1:{port}: cannot listen: Address already in use; give another address "
            "with --http, or stop what holds it"
        )

    run(main)


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    """What the system says of it, without a traceback."""

    async def main() -> None:
        with pytest.raises(TransportError, match=r"^http .*: cannot listen: \w"):
            HttpServer((host, 1), lambda: STATUS, registry())

    run(main)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 on loopback")
def test_an_ipv6_address_stands_in_brackets() -> None:
    """As it does in the cluster file."""

    async def main() -> None:
        with listening(host="[::1]") as server:
            port = server._server.server_address[1]

            def over_ipv6() -> int:
                connection = http.client.HTTPConnection("::1", port, timeout=30)
                connection.request("GET", "/healthz")
                status = connection.getresponse().status
                connection.close()
                return status

            assert await asyncio.to_thread(over_ipv6) == 200

    run(main)


def test_listening_asks_no_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service that does not answer must not keep a node from its start."""

    def asked(name: str = "") -> str:
        raise AssertionError(name)

    monkeypatch.setattr(socket, "getfqdn", asked)

    async def main() -> None:
        with listening() as server:
            assert (await asyncio.to_thread(ask, server, "/healthz")).status == 200

    run(main)


def test_a_closed_server_gives_its_address_back() -> None:
    """The next process can listen there at once."""

    async def main() -> None:
        with listening() as server:
            port = server._server.server_address[1]
            await asyncio.to_thread(ask, server, "/healthz")
        again = HttpServer(("127.0.0.1", port), lambda: STATUS, registry())
        again.close()

    run(main)


# Limits


def dial(server: HttpServer) -> socket.socket:
    port = server._server.server_address[1]
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side closes a connection soon; it says nothing before."""
    connection.settimeout(SOON_SECONDS)
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def test_one_address_has_a_limit_of_connections() -> None:
    """One more is closed at once; those that are there stay, and may leave room for others."""

    async def main() -> None:
        with listening() as server:

            def crowd() -> None:
                first = [dial(server) for _ in range(module.CONNECTIONS_PER_ADDRESS_MAX)]
                assert all(is_closed(dial(server)) for _ in range(30))
                assert server.refused == 30
                for connection in first:
                    connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                    assert connection.recv(15) == b"HTTP/1.1 200 OK"
                    connection.close()

            await asyncio.to_thread(crowd)
            while server._server._open:
                await asyncio.sleep(0.01)
            assert (await asyncio.to_thread(ask, server, "/healthz")).status == 200

    run(main)


def test_all_addresses_together_have_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the threads of a process stay few, however many machines ask."""
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 3)

    async def main() -> None:
        with listening() as server:

            def crowd() -> None:
                first = [dial(server) for _ in range(3)]
                assert is_closed(dial(server))
                assert server.refused == 1
                for connection in first:
                    connection.close()

            await asyncio.to_thread(crowd)

    run(main)


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\nX: ", b"GET /healthz HTTP/1.1\r\n\r\n"])
def test_a_connection_that_takes_too_long_is_cut(
    words: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it says nothing, a byte now and then, or nothing more after its first request."""
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.3)  # The handler's own time-out stays long.

    def drip(server: HttpServer) -> bool:
        end = time.monotonic() + SOON_SECONDS
        with dial(server) as connection, suppress(ConnectionError):
            connection.sendall(words)
            connection.settimeout(0.05)
            while time.monotonic() < end:
                with suppress(TimeoutError):
                    if not connection.recv(4096):
                        return True
                connection.sendall(b"x" if words.endswith(b": ") else b"")
            return False
        return True

    async def main() -> None:
        with listening() as server:
            assert await asyncio.to_thread(drip, server)

    run(main)


def test_a_request_has_a_limit_of_bytes() -> None:
    """What is beyond it is not read: the connection ends after the answer."""
    long = b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 30_000 + b"\r\n\r\n"

    def twice(server: HttpServer) -> bytes:
        said = b""
        with dial(server) as connection, suppress(ConnectionError):
            connection.settimeout(SOON_SECONDS)
            connection.sendall(long + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
            while words := connection.recv(4096):
                said += words
        return said

    async def main() -> None:
        with listening() as server:
            said = await asyncio.to_thread(twice, server)
            assert said.count(b"HTTP/1.1 200 OK") <= 1
            assert (await asyncio.to_thread(ask, server, "/healthz")).status == 200

    run(main)


def test_answers_take_a_small_part_of_the_event_loop() -> None:
    """However fast somebody asks: after an answer that took the loop long there is a rest."""
    busy = 0.0

    def status() -> dict[str, Any]:
        nonlocal busy
        time.sleep(0.01)
        busy += 0.01
        return STATUS

    async def main() -> None:
        with listening(status) as server:
            began = time.monotonic()
            await asyncio.gather(
                *(asyncio.to_thread(ask, server, "/status") for _ in range(8)),
            )
            assert busy <= 0.2 * (time.monotonic() - began) + 0.01

    run(main)


class Turn:
    """A lock that says how many have come to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.came = threading.Semaphore(0)

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_those_who_have_to_wait_share_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that many who ask cost the event loop no more than one; who comes alone gets news."""
    monkeypatch.setattr(module, "SHARED_SECONDS", 60.0)
    calls: list[None] = []

    def status() -> dict[str, Any]:
        calls.append(None)
        return STATUS

    async def main() -> None:
        with listening(status) as server:
            turn = Turn()
            server._server._turn = turn  # type: ignore[assignment]
            with turn:
                turn.came.acquire()
                asking = [
                    asyncio.create_task(asyncio.to_thread(ask, server, "/status")) for _ in "abcd"
                ]
                for _ in asking:
                    await asyncio.to_thread(turn.came.acquire)
            assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
            assert len(calls) == 1
            for _ in range(2):
                await asyncio.to_thread(ask, server, "/status")
            assert len(calls) == 3

    run(main)
