"""The command that tells a container's engine whether its node is well."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from byzsgd_daemons import health, http
from byzsgd_daemons.http import HttpServer

PATIENCE_SECONDS = 60.0
"""Far above what an answer takes, on a machine that is busy, too."""

WAITS: dict[str, Any] = {"ready": False, "sentence": "waits for 1 of 4 models of step 3: s2"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command beside a node that waits, which listens on some address."""
    monkeypatch.setattr(health, "TIMEOUT_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(http, "ANSWER_SECONDS", PATIENCE_SECONDS)

    def run(host: str, *words: str) -> int:
        async def main() -> int:
            server = HttpServer((host, 0), lambda: WAITS, CollectorRegistry())
            port = server._server.server_address[1]
            monkeypatch.setenv("BYZSGD_HTTP", f"{host}:{port}")
            monkeypatch.setattr("sys.argv", ["health", *words])
            try:
                return await asyncio.to_thread(health.main)
            finally:
                server.close()

        return asyncio.run(main())

    return run


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::]"])
def test_a_node_that_answers_is_well(
    host: str, asked: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it listens, and whatever it waits for."""
    if host == "[::]":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("NOT TESTED: no IPv6 on loopback here")
    assert asked(host) == 0
    assert capsys.readouterr().out == ""


def test_a_node_that_waits_is_not_ready(
    asked: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says what the node says."""
    assert asked("127.0.0.1", "/readyz") == 1
    assert capsys.readouterr().out == f"{WAITS['sentence']}\n"


def test_a_node_that_does_not_answer_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens, and that is all: the command gives up in time."""
    monkeypatch.setattr(health, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = health.problem(f"127.0.0.1:{silent.getsockname()[1]}", "/healthz")

    assert found is not None
    assert found.endswith("timed out")


@pytest.mark.parametrize("address", ["", "9100", "nowhere"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    """And no traceback."""
    assert health.problem(address, "/healthz") is not None


def test_it_imports_little() -> None:
    """Containers run it every few seconds, beside a node that wants the processor."""
    code = "import sys, byzsgd_daemons.health; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()

    assert "byzsgd_daemons.health" in modules
    assert {"numpy", "zmq", "asyncio", "argparse", "byzsgd"}.isdisjoint(modules)
