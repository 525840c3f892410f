"""What systemd hears of a daemon, and when it hears nothing any more."""

import asyncio
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import GatherModel, Gradient
from byzsgd.protocol import ComputeGradient, GradientComputed
from byzsgd.protocol.node import Waiting
from byzsgd_daemons.host import NOTIFY_SECONDS, STUCK_SECONDS, STUCK_TIMES, Host
from byzsgd_daemons.notify import Notifier
from byzsgd_daemons.status import summary

PATIENCE_SECONDS = 60.0

MESSAGE_BYTES_MAX = 4096
"""NOTIFY_BUFFER_MAX of systemd."""

ONE = np.float32([1])


class Manager:
    """A service manager's end of the line."""

    def __init__(self) -> None:
        self.name = f"@byzsgd-test-{uuid.uuid4()}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + self.name[1:])

    def hears(self) -> list[list[str]]:
        """The messages that have come since the last look, each as its lines."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(1 << 16).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that has started this process, with a watchdog of 8 s."""
    manager = Manager()
    monkeypatch.setenv("NOTIFY_SOCKET", manager.name)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    monkeypatch.setenv("WATCHDOG_USEC", "8000000")
    with manager.socket:
        yield manager


def test_nobody_is_told_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that systemd has not started has no watchdog."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    notifier = Notifier()
    notifier.tell("READY=1")

    assert notifier.watchdog_seconds == inf


def test_lines_come_in_one_message(manager: Manager) -> None:
    """As man 3 sd_notify has it."""
    notifier = Notifier()
    notifier.tell("READY=1", "STATUS=step 3")

    assert notifier.watchdog_seconds == 8.0
    assert manager.hears() == [["READY=1", "STATUS=step 3"]]


def test_a_socket_may_be_a_file(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As systemd's own is."""
    path = tmp_path_factory.mktemp("n") / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        Notifier().tell("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_a_watchdog_of_another_process_is_none(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children inherit the environment."""
    monkeypatch.setenv("WATCHDOG_PID", "1")

    assert Notifier().watchdog_seconds == inf


def test_a_long_sentence_is_cut(manager: Manager) -> None:
    """Systemd drops a message that is too long, and the watchdog's line would go with it."""
    Notifier().tell("READY=1", "STATUS=" + "\N{GREEK SMALL LETTER ALPHA}" * 10_000, "WATCHDOG=1")
    [[ready, status, watchdog]] = manager.hears()

    assert (ready, watchdog) == ("READY=1", "WATCHDOG=1")
    assert len(f"{ready}\n{status}\n{watchdog}".encode()) < MESSAGE_BYTES_MAX


def test_what_cannot_be_told_holds_nobody_up(manager: Manager) -> None:
    """Neither a queue that is full, nor a manager that is gone."""
    notifier = Notifier()
    for _ in range(1000):
        notifier.tell("WATCHDOG=1")
    assert 0 < len(manager.hears()) < 1000
    manager.socket.close()
    notifier.tell("WATCHDOG=1")


# What a host tells


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))


def test_a_node_is_ready_once_it_listens(manager: Manager, puppet: Any, wire: Any) -> None:
    """Not before; it goes on saying so, and when it stops, and nothing after that."""

    async def main() -> None:
        host, transport = Host(puppet()), wire()
        may_open = asyncio.Event()
        transport.open = may_open.wait
        task = asyncio.create_task(host.run(transport))
        await asyncio.sleep(0)
        assert manager.hears() == []
        may_open.set()
        await transport.running.wait()
        said = ["READY=1", "STATUS=step 0: puppet at step 0", "WATCHDOG=1"]
        assert manager.hears() == [said]
        host._notifies_at = 0.0
        loop = asyncio.get_running_loop()
        assert (await loop.sock_recv(manager.socket, 4096)).decode().split("\n") == said
        host._end(None)
        await task
        assert [message[0] for message in manager.hears()] == ["STOPPING=1"]
        host._notify(1e9)
        assert manager.hears() == []

    run(main)


@pytest.fixture
def told(manager: Manager, puppet: Any, wire: Any) -> Callable[..., None]:
    """Hands a test a node, its host, and the lines that systemd is told at an instant."""

    def begin(test: Any, **options: Any) -> None:
        async def main() -> None:
            node = puppet("w1")
            host, transport = Host(node, **options), wire()
            task = asyncio.create_task(host.run(transport))
            try:
                await transport.running.wait()
                began = asyncio.get_running_loop().time()
                manager.hears()

                def tells(seconds: float) -> list[str]:
                    host._notifies_at = 0.0
                    host._notify(began + seconds)
                    return manager.hears()[0]

                await test(node, host, tells)
            finally:
                task.cancel()

        run(main)

    return begin


@pytest.mark.parametrize("watchdog", [8.0, 4.0, inf])
def test_systemd_hears_often_enough(told: Any, manager: Manager, watchdog: float) -> None:
    """Every 2 s, or in a quarter of what the watchdog allows."""

    async def test(_node: Any, host: Host, tells: Any) -> None:
        host._notifier.watchdog_seconds = watchdog
        host._notifies_at = 1e6
        host._notify(1e6 - 0.01)
        assert manager.hears() == []
        host._notify(1e6)
        assert len(manager.hears()) == 1
        assert host._notifies_at - 1e6 == min(NOTIFY_SECONDS, watchdog / 4)

    told(test)


def test_a_node_that_waits_for_others_lives(told: Any) -> None:
    """However long: a restart would not bring them."""

    async def test(node: Any, host: Host, tells: Any) -> None:
        node.waits = Waiting("models", 3, 1, 4, ("s3",), 0.0)
        line = tells(100 * STUCK_SECONDS)
        assert line[-1] == "WATCHDOG=1"
        assert "waits for 3 of 4 models of step 3: s3 (never seen)" in line[1]

    told(test)


def test_a_node_whose_own_work_does_not_end_is_given_up(
    told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The watchdog hears nothing while that lasts, and the log says so once."""
    gate = threading.Event()

    def gradient(vector: Any, step: int) -> Any:
        assert gate.wait(PATIENCE_SECONDS)
        return vector, 0.0

    async def test(node: Any, host: Host, tells: Any) -> None:
        host._do([ComputeGradient(1, ONE, None, 0.0)])
        assert tells(0.9 * STUCK_SECONDS)[-1] == "WATCHDOG=1"
        stuck = 1.1 * STUCK_SECONDS
        assert [tells(stuck)[0], tells(stuck)[0]] == ["READY=1", "READY=1"]
        assert "WATCHDOG=1" not in tells(stuck)
        gate.set()
        await node.wait(GradientComputed)
        assert tells(stuck)[-1] == "WATCHDOG=1"

    told(test, gradient=gradient)
    assert [line for line in caplog.messages if "watchdog" in line] == [
        f"works for {1.1 * STUCK_SECONDS:.0f} s on what took 0.0 s at most: "
        "tells systemd's watchdog no more"
    ]


def test_work_that_always_takes_long_is_not_stuck(told: Any) -> None:
    """A limit in seconds alone would end, again and again, a node with a large model."""
    gate = threading.Event()

    def gradient(vector: Any, step: int) -> Any:
        assert gate.wait(PATIENCE_SECONDS)
        return vector, 0.0

    async def test(node: Any, host: Host, tells: Any) -> None:
        host._longest_work = 100.0
        host._do([ComputeGradient(1, ONE, None, 0.0)])
        assert tells(STUCK_TIMES * 100.0 - 1)[-1] == "WATCHDOG=1"
        assert "WATCHDOG=1" not in tells(STUCK_TIMES * 100.0 + 1)
        gate.set()

    told(test, gradient=gradient)


def test_the_longest_work_is_remembered(told: Any) -> None:
    """Of all that has ended."""

    async def test(node: Any, host: Host, tells: Any) -> None:
        host._do([ComputeGradient(1, ONE, None, 0.0)])
        await node.wait(GradientComputed)
        assert host._longest_work > 0
        assert host._at_work == {}

    told(test, gradient=lambda vector, step: (vector, 0.0))


# What a line says


def test_a_line_has_step_and_drift_of_a_server(server: Any) -> None:
    """And what it does; the drift once there was a gather: by the median, as few may lie."""
    s1 = server(value=3)
    assert summary(s1.node, s1.now).startswith("step 0: waits for 3 of 3 gradients of step 0: w1")
    for worker in ("w1", "w2", "w3"):
        s1.receives(worker, Gradient(0, ONE))
    s1.works()
    for peer, value in (("s2", 2), ("s3", 4), ("s4", 900)):
        s1.receives(peer, GatherModel(1, np.float32([value])))
    s1.works()

    drift = s1.node.progress.drift.median
    assert drift == 2.0
    assert summary(s1.node, s1.now).startswith("step 1, drift 2: waits for 3 of 3 gradients")


def test_a_line_has_step_and_loss_of_a_worker(worker: Any) -> None:
    """The loss once there is one."""
    w1 = worker()
    assert summary(w1.node, w1.now).startswith("step 0: waits for 4 of 4 models of step 0: s1")
    w1.node.progress.loss = 0.25
    assert summary(w1.node, w1.now).startswith("step 0, loss 0.25: waits")
