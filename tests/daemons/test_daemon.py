"""What surrounds a host: HTTP while it runs, and the first and last words of the log."""

import asyncio
import http.client
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byzsgd.errors import ConfigError
from byzsgd.protocol import SaveCheckpoint, Stop
from byzsgd.transport import TransportError
from byzsgd_daemons import daemon
from byzsgd_daemons import host as host_module
from byzsgd_daemons import http as http_module
from byzsgd_daemons.host import Host

PATIENCE_SECONDS = 60.0


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))


@pytest.fixture(autouse=True)
def _no_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that would end this process."""
    monkeypatch.setattr(host_module, "Timer", lambda *arguments: threading.Thread())


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is busy is not taken for one that hangs."""
    monkeypatch.setattr(http_module, "ANSWER_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports that HTTP was answered on: a daemon that asks for port 0 is given a free one."""
    found: list[int] = []
    listen = http_module._Server.server_bind

    def watched(self: Any) -> None:
        listen(self)
        found.append(self.server_address[1])

    monkeypatch.setattr(http_module._Server, "server_bind", watched)
    return found


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_running_node_can_be_looked_at(
    puppet: Any, wire: Any, ports: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Metrics of the node, of its process and of Python; its status; and then no more."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        node, transport = puppet(), wire()
        node.step = 7
        task = asyncio.create_task(daemon.run(Host(node), transport, ("127.0.0.1", 0)))
        await transport.running.wait()
        [port] = ports
        code, metrics = await asyncio.to_thread(get, port, "/metrics")
        assert code == 200
        for line in ("byzsgd_node_step 7.0", "process_cpu_seconds_total ", "python_info{"):
            assert f"\n{line}" in metrics
        code, status = await asyncio.to_thread(get, port, "/status")
        assert (code, json.loads(status)["id"]) == (200, "s1")
        assert await asyncio.to_thread(get, port, "/healthz") == (200, "puppet at step 7\n")

        os.kill(os.getpid(), signal.SIGTERM)
        await task
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(get, port, "/healthz")

    run(main)
    assert [record.getMessage() for record in caplog.records if record.name == "byzsgd"] == [
        "starts at step 7",
        "stops: a signal asked for it",
        "has stopped at step 7",
    ]


def test_the_last_word_says_what_is_on_disk(
    puppet: Any, wire: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is catching up has no model of its step yet, but an older one."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        node, transport = puppet(), wire()
        node.step = 7
        node.checkpoint = lambda: SaveCheckpoint(4, np.ones(1, np.float32))
        task = asyncio.create_task(daemon.run(Host(node, checkpoints=tmp_path), transport, None))
        await transport.running.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await task

    run(main)
    assert caplog.messages[-1] == "has stopped at step 7, on disk is step 4"
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000004.safetensors"]


def test_connections_that_http_refuses_are_counted(
    puppet: Any, wire: Any, ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cannot scrape a node now learns later that there was no room."""

    async def main() -> None:
        transport = wire()
        task = asyncio.create_task(daemon.run(Host(puppet()), transport, ("127.0.0.1", 0)))
        await transport.running.wait()
        with monkeypatch.context() as crowded:
            crowded.setattr(http_module, "CONNECTIONS_MAX", 0)
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(get, ports[0], "/metrics")
        _, metrics = await asyncio.to_thread(get, ports[0], "/metrics")
        assert "\nbyzsgd_node_http_refused_total 1.0\n" in metrics
        os.kill(os.getpid(), signal.SIGTERM)
        await task

    run(main)


def test_without_an_address_nothing_listens(puppet: Any, wire: Any, ports: list[int]) -> None:
    """A node may run without HTTP."""

    async def main() -> None:
        transport = wire()
        task = asyncio.create_task(daemon.run(Host(puppet()), transport, None))
        await transport.running.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await task

    run(main)
    assert ports == []


def test_a_taken_address_ends_a_daemon_before_it_begins(puppet: Any, wire: Any) -> None:
    """No message is sent, and no connection made."""

    async def main() -> None:
        transport = wire()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = taken.getsockname()
            with pytest.raises(TransportError, match=rf"^http 127\.0\.0\.1:{address[1]}: "):
                await daemon.run(Host(puppet()), transport, address)
        assert transport.calls == []

    run(main)


def test_a_node_that_ends_badly_stops_answering_too(
    puppet: Any, wire: Any, ports: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The error comes out, and the log does not say that all was well."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        node = puppet()
        node.first = [Stop("another file")]
        with pytest.raises(ConfigError, match=r"^another file$"):
            await daemon.run(Host(node), wire(), ("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(get, ports[0], "/healthz")

    run(main)
    assert "has stopped at step 0" not in caplog.messages
