"""The host: events in, effects done, the timer armed, and every way to end."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from byzsgd import checkpoint
from byzsgd.checkpoint import Failure, digest_of, load_newest
from byzsgd.errors import ByzsgdError, CheckpointError, ConfigError, TaskError
from byzsgd.messages import Gradient, Model, Pull, Reason
from byzsgd.protocol import (
    Aggregate,
    Aggregated,
    ComputeGradient,
    DeadlinePassed,
    Effect,
    Event,
    GradientComputed,
    NewLife,
    PeerConnected,
    Publish,
    Received,
    Refuse,
    SaveCheckpoint,
    Send,
    Stop,
)
from byzsgd.protocol.node import Waiting
from byzsgd.protocol.variance import State
from byzsgd_daemons import host as module
from byzsgd_daemons.host import (
    INLINE_MAX,
    QUICK_SECONDS,
    QUICK_SECONDS_MAX,
    SLOW_SECONDS,
    UNSAVED_SECONDS,
    Host,
)

PATIENCE_SECONDS = 60.0

ONE = np.float32([1])

Main = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """Runs a test's coroutine on both of the loops that a host may meet."""

    def run(main: Main) -> None:
        bounded = asyncio.wait_for(main(), PATIENCE_SECONDS)
        if request.param == "uvloop":
            uvloop.run(bounded)
        else:
            asyncio.run(bounded)

    return run


@contextmanager
def hosted(host: Host, wire: Any) -> Iterator["asyncio.Task[None]"]:
    """A host that runs; whoever does not await its end ends it here."""
    task = asyncio.get_running_loop().create_task(host.run(wire))
    try:
        yield task
    finally:
        task.cancel()


def votes(size: int) -> Aggregate:
    vectors = tuple(np.full(size, value, np.float32) for value in (1, 2, 9))
    return Aggregate(4, "coordinate_median", ("w1", "w2", "w3"), vectors, 1)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "byzsgd" and r.levelno >= level]


# Events


def test_what_the_transport_tells_becomes_an_event(run: Any, puppet: Any, wire: Any) -> None:
    """Messages and connections, in their order, with the loop's time as now."""

    async def main() -> None:
        node = puppet()
        host, transport = Host(node), wire()
        with hosted(host, transport):
            await transport.running.wait()
            message = Gradient(3, ONE)
            host.connected("w1")
            host.received("w1", message)

        assert node.events == [PeerConnected("w1"), Received("w1", message)]

    run(main)


def test_a_lost_connection_is_logged(
    run: Any, puppet: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no event: the transport dials again by itself."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        node = puppet()
        host, transport = Host(node), wire()
        with hosted(host, transport):
            await transport.running.wait()
            host.disconnected("s2")
        assert node.events == []

    run(main)
    assert messages(caplog) == ["lost the connection to s2"]


# Effects


def test_messages_go_to_the_transport(run: Any, puppet: Any, wire: Any) -> None:
    """Those of the start too, in their order."""

    async def main() -> None:
        node, model = puppet(), Model(0, ONE)
        node.first = [Publish(model), Send(("s2", "s3"), Pull(1))]
        node.script[PeerConnected] = lambda _: [Send(("w1",), Pull(2))]
        host, transport = Host(node), wire()
        with hosted(host, transport):
            await transport.running.wait()
            host.connected("w1")

        assert transport.published == [model]
        assert transport.sent == [(("s2", "s3"), Pull(1)), (("w1",), Pull(2))]
        assert transport.calls[:2] == ["open", "run"]

    run(main)


@pytest.mark.parametrize("size", [1, INLINE_MAX // 3, INLINE_MAX // 3 + 1])
def test_an_aggregation_comes_back_as_an_event(run: Any, puppet: Any, wire: Any, size: int) -> None:
    """Small or large; never within the event that asked for it."""

    async def main() -> None:
        node = puppet()
        node.first = [votes(size)]
        with hosted(Host(node), wire()):
            event = await node.wait(Aggregated)

        assert isinstance(event, Aggregated)
        assert event.step == 4
        assert event.vector.shape == (size,)
        assert (event.vector == 2).all()
        assert event.report.seconds >= 0

    run(main)


@pytest.mark.parametrize(("size", "inline"), [(1, True), (INLINE_MAX, False)])
def test_heavy_aggregations_leave_the_event_loop_free(
    run: Any, puppet: Any, wire: Any, size: int, inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones do not pay for a thread."""
    threads: list[bool] = []
    aggregate = module.aggregate

    def watched(*args: Any) -> Aggregated:
        threads.append(threading.current_thread() is threading.main_thread())
        return aggregate(*args)

    monkeypatch.setattr(module, "aggregate", watched)

    async def main() -> None:
        node = puppet()
        node.first = [votes(size)]
        with hosted(Host(node), wire()):
            await node.wait(Aggregated)

    run(main)
    assert threads == [inline]


def test_a_gradient_is_computed_in_a_thread(run: Any, puppet: Any, wire: Any) -> None:
    """Events are met while it is computed, and its result is one: momentum and loss included."""

    async def main() -> None:
        node, gate = puppet("w1"), threading.Event()

        def gradient(vector: Any, step: int) -> Any:
            assert gate.wait(PATIENCE_SECONDS)
            return vector * np.float32(step), 0.25

        node.first = [ComputeGradient(6, np.float32([2]), np.float32([10]), 0.5)]
        host, transport = Host(node, gradient=gradient), wire()
        with hosted(host, transport):
            await transport.running.wait()
            host.connected("s1")
            assert node.events == [PeerConnected("s1")]
            gate.set()
            event = await node.wait(GradientComputed)

        assert isinstance(event, GradientComputed)
        assert (event.step, event.vector.tolist(), event.loss) == (6, [11], 0.25)

    run(main)


def test_two_gradients_asked_for_at_once_do_not_mix(run: Any, puppet: Any, wire: Any) -> None:
    """Each event has its own effect's step."""

    async def main() -> None:
        node = puppet("w1")
        node.first = [ComputeGradient(step, ONE, None, 0.0) for step in (1, 2, 3)]
        with hosted(Host(node, gradient=lambda v, step: (v * step, float(step))), wire()):
            await node.wait(GradientComputed, 3)

        found = sorted((e.step, e.vector.tolist(), e.loss) for e in node.of(GradientComputed))
        assert found == [(1, [1], 1.0), (2, [2], 2.0), (3, [3], 3.0)]

    run(main)


@pytest.mark.parametrize(
    ("seconds", "on_the_loop"),
    [
        ([0.0] * 14, [False] * 11 + [True] * 3),
        ([QUICK_SECONDS] * 14, [False] * 14),
        ([*[0.0] * 6, *[QUICK_SECONDS] * 5, QUICK_SECONDS, 0.0], [False] * 11 + [True, False]),
        (
            [*[0.0] * 12, QUICK_SECONDS_MAX, *[0.0] * 12],
            [*[False] * 11, *[True] * 2, *[False] * 11, True],
        ),
    ],
    ids=["quick", "not quick", "most are quick", "one is slow"],
)
def test_quick_gradients_do_not_pay_for_a_thread(
    run: Any,
    puppet: Any,
    wire: Any,
    seconds: list[float],
    on_the_loop: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once most of the last were quick, while none of them held up the event loop."""
    threads: list[bool] = []

    def compute(effect: ComputeGradient, *_: Any) -> GradientComputed:
        threads.append(threading.current_thread() is threading.main_thread())
        return GradientComputed(effect.step, effect.vector, seconds=seconds[effect.step])

    async def main() -> None:
        node, transport = puppet("w1"), wire()
        host = Host(node, gradient=lambda vector, step: (vector, 0.0))
        with hosted(host, transport):
            await transport.running.wait()
            for step in range(len(seconds)):
                host._do([ComputeGradient(step, ONE, None, 0.0)])
                await node.wait(GradientComputed, step + 1)

    monkeypatch.setattr(module, "compute_gradient", compute)
    run(main)
    assert threads == on_the_loop


# The timer


class Timers:
    """A loop whose clock stands until a test moves it, and which tells its timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = 1000.0
        self.armed: list[tuple[float, Callable[[], None]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        self.armed.append((when, call))
        return asyncio.TimerHandle(when, call, (), self._loop)

    def ring(self) -> None:
        """Let the last timer ring, whatever the time."""
        self.armed[-1][1]()


@pytest.fixture
def timed(puppet: Any, wire: Any) -> Callable[[Callable[[Any, Host, Timers], None]], None]:
    """Hands a test a node, its host and the timers, once it runs on a clock of the test's."""

    def begin(test: Callable[[Any, Host, Timers], None]) -> None:
        async def main() -> None:
            node = puppet()
            host, transport = Host(node), wire()
            with hosted(host, transport):
                await transport.running.wait()
                timers = Timers(asyncio.get_running_loop())
                host._loop = timers  # type: ignore[assignment]
                test(node, host, timers)

        asyncio.run(asyncio.wait_for(main(), PATIENCE_SECONDS))

    return begin


def test_the_timer_is_armed_to_the_deadline(timed: Any) -> None:
    """After any event; and at the deadline the node is told."""

    def test(node: Any, host: Host, timers: Timers) -> None:
        node.deadline = 1005.0
        host.connected("w1")
        assert [when for when, _ in timers.armed] == [1005.0]
        timers.now = 1005.0
        node.script[DeadlinePassed] = lambda _: setattr(node, "deadline", 1009.0) or []
        timers.ring()
        assert node.events[1:] == [DeadlinePassed()]
        assert [when for when, _ in timers.armed] == [1005.0, 1009.0]

    timed(test)


def test_a_deadline_that_moved_on_is_waited_for(timed: Any) -> None:
    """The timer that was armed before rings, looks, and is armed anew: no event."""

    def test(node: Any, host: Host, timers: Timers) -> None:
        node.deadline = 1005.0
        host.connected("w1")
        node.deadline = 1008.0
        host.connected("w1")
        assert [when for when, _ in timers.armed] == [1005.0]
        timers.now = 1005.0
        timers.ring()
        assert node.of(DeadlinePassed) == []
        assert [when for when, _ in timers.armed] == [1005.0, 1008.0]
        timers.now = 1008.0
        timers.ring()
        assert node.of(DeadlinePassed) == [DeadlinePassed()]

    timed(test)


def test_a_deadline_that_came_nearer_is_met_in_time(timed: Any) -> None:
    """The timer is armed anew at once."""

    def test(node: Any, host: Host, timers: Timers) -> None:
        node.deadline = 1005.0
        host.connected("w1")
        node.deadline = 1002.0
        host.connected("w1")
        assert [when for when, _ in timers.armed] == [1005.0, 1002.0]
        assert host._timer is not None
        assert host._timer.when() == 1002.0

    timed(test)


def test_without_a_deadline_there_is_no_timer(timed: Any) -> None:
    """And one that was armed before tells the node nothing."""

    def test(node: Any, host: Host, timers: Timers) -> None:
        host.connected("w1")
        assert timers.armed == []
        node.deadline = 1005.0
        host.connected("w1")
        node.deadline = float("inf")
        timers.now = 1005.0
        timers.ring()
        assert node.of(DeadlinePassed) == []
        assert len(timers.armed) == 1

    timed(test)


def test_a_deadline_is_met_on_a_real_clock(run: Any, puppet: Any, wire: Any) -> None:
    """One that is over when it is set is met at once."""

    async def main() -> None:
        node = puppet()
        node.deadline = 0.0
        node.script[DeadlinePassed] = lambda _: setattr(node, "deadline", float("inf")) or []
        with hosted(Host(node), wire()):
            await node.wait(DeadlinePassed)
        assert node.of(DeadlinePassed) == [DeadlinePassed()]

    run(main)


def test_events_before_an_overdue_timer_rings(run: Any, puppet: Any, wire: Any) -> None:
    """A timer that was late when it was set stays set, and no second one is: on every loop."""

    async def main() -> None:
        node, transport = puppet(), wire()
        node.script[DeadlinePassed] = lambda _: setattr(node, "deadline", float("inf")) or []
        host = Host(node)
        with hosted(host, transport):
            await transport.running.wait()
            node.deadline = 0.0
            host.connected("w1")
            host.connected("w2")
            await node.wait(DeadlinePassed)
            assert node.of(DeadlinePassed) == [DeadlinePassed()]

    run(main)


# Checkpoints


def test_a_checkpoint_is_written(run: Any, puppet: Any, wire: Any, tmp_path: Path) -> None:
    """Where the cluster's own will be found again."""
    saved = threading.Event()

    async def main() -> None:
        node = puppet()
        node.first = [SaveCheckpoint(7, ONE)]
        host = Host(node, checkpoints=tmp_path / "checkpoints")
        done, host._saved = host._saved, lambda future: (done(future), saved.set())  # type: ignore[assignment,func-returns-value]
        with hosted(host, wire()):
            assert await asyncio.to_thread(saved.wait, PATIENCE_SECONDS)
        found, problems = load_newest(tmp_path / "checkpoints", d=1, digest=digest_of(node.cluster))
        assert found is not None
        assert (found.step, found.vector.tolist(), problems) == (7, [1], [])

    run(main)


class Disk:
    """Stands for ``checkpoint.save``: each save waits until the test lets it go on."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.gate = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.error: Exception | None = None

    def save(self, folder: Path, step: int, vector: Any, *, digest: bytes) -> None:
        self.steps.append(step)
        self.began.release()
        assert self.gate.acquire(timeout=PATIENCE_SECONDS)
        if self.error:
            raise self.error

    async def begins(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, True, PATIENCE_SECONDS)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(checkpoint, "save", disk.save)
    return disk


def test_a_slow_disk_holds_up_nothing_and_the_last_model_is_saved(
    run: Any, puppet: Any, wire: Any, disk: Disk, tmp_path: Path
) -> None:
    """One save at a time; of those that came meanwhile the newest is written, the others not."""

    async def main() -> None:
        node = puppet()
        steps = iter((2, 3, 4))
        node.first = [SaveCheckpoint(1, ONE)]
        node.script[PeerConnected] = lambda _: [SaveCheckpoint(next(steps), ONE)]
        host, transport = Host(node, checkpoints=tmp_path), wire()
        with hosted(host, transport):
            await disk.begins()
            for _ in range(3):
                host.connected("w1")
            assert len(node.events) == 3
            disk.gate.release(2)
            await disk.begins()
        assert disk.steps == [1, 4]

    run(main)


@pytest.mark.parametrize("error", [CheckpointError("no space"), RuntimeError("no space")])
def test_training_goes_on_without_its_checkpoint(
    run: Any,
    puppet: Any,
    wire: Any,
    disk: Disk,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """The failure is an ERROR in the log, and the next one is tried."""
    disk.error = error
    disk.gate.release(2)

    async def main() -> None:
        node = puppet()
        node.first = [SaveCheckpoint(1, ONE), SaveCheckpoint(2, ONE)]
        host, transport = Host(node, checkpoints=tmp_path), wire()
        with hosted(host, transport) as task:
            await disk.begins()
            await disk.begins()
            host.connected("w1")
            assert node.events == [PeerConnected("w1")]
            assert not task.done()

    run(main)
    assert messages(caplog, logging.ERROR)[0] == (
        "checkpoint not saved, training goes on: no space"
    )


def test_a_disk_that_takes_nothing_is_told_of_once_and_its_return_too(
    puppet: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each is counted by its reason; another reason is told of, and after long the same again."""
    caplog.set_level(logging.INFO)
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    async def main() -> None:
        host = Host(puppet(), checkpoints=tmp_path)
        host._loop = asyncio.get_running_loop()
        full, read_only = CheckpointError("full!", "full"), CheckpointError("ro!", "read-only")
        for error in (full, full, read_only, full):
            host.unsaved(error)
        assert host.saves.failed == {Failure.FULL: 3, Failure.READ_ONLY: 1}
        assert (host.saves.written, host.saves.step, host.saves.error) == (0, None, "full!")
        clock[0] += UNSAVED_SECONDS
        host.unsaved(full)
        host._kept(9)
        host._kept(12)
        assert (host.saves.written, host.saves.step, host.saves.error) == (2, 12, None)
        host.unsaved(full)
        assert host.node.progress.work["checkpoint"].counts

    asyncio.run(main())
    prefix = "checkpoint not saved, training goes on:"
    assert messages(caplog) == [
        f"{prefix} full!",
        f"{prefix} ro!",
        f"{prefix} full! (and 2 times before)",
        "checkpoints are saved again, at step 9",
        f"{prefix} full!",
    ]


def test_a_stop_that_loses_the_model_is_an_error(
    run: Any, puppet: Any, wire: Any, disk: Disk, tmp_path: Path
) -> None:
    """The operator is told what is on disk instead; the transport is closed all the same."""
    disk.error = CheckpointError("no space", "full")
    disk.gate.release()

    async def main() -> None:
        node, transport = puppet(), wire()
        node.checkpoint = lambda: SaveCheckpoint(9, ONE)
        host = Host(node, checkpoints=tmp_path)
        host.saves.step = 4
        with hosted(host, transport) as task:
            await transport.running.wait()
            host._end(None)
            with pytest.raises(
                CheckpointError, match=r"^step 9 is not saved, on disk is step 4: no"
            ):
                await task
        assert transport.calls[-1] == "close"

    run(main)


def test_without_a_folder_nothing_is_saved(run: Any, puppet: Any, wire: Any, disk: Disk) -> None:
    """The effect is no error."""

    async def main() -> None:
        node = puppet()
        node.first = [SaveCheckpoint(1, ONE)]
        host, transport = Host(node), wire()
        with hosted(host, transport) as task:
            await transport.running.wait()
            assert not task.done()
        assert disk.steps == []

    run(main)


# Lives


def test_a_node_that_goes_back_speaks_under_another_boot(run: Any, puppet: Any, wire: Any) -> None:
    """Before it says anything more."""

    async def main() -> None:
        node, transport = puppet(), wire()
        transport.publish = lambda message: transport.calls.append(f"step {message.step}")
        node.first = [Publish(Model(8, ONE)), NewLife(), Publish(Model(7, ONE))]
        with hosted(Host(node), transport):
            await transport.running.wait()
        assert [call for call in transport.calls if " " in call] == ["step 8", "new life", "step 7"]

    run(main)


def test_a_stop_right_after_going_back_is_resumed_there(
    run: Any, puppet: Any, wire: Any, tmp_path: Path
) -> None:
    """Not at the later checkpoint of the life before."""

    async def main() -> None:
        node, transport = puppet(), wire()
        node.first = [SaveCheckpoint(103, ONE), NewLife()]
        node.checkpoint = lambda: SaveCheckpoint(80, ONE)
        host = Host(node, checkpoints=tmp_path)
        with hosted(host, transport) as task:
            await transport.running.wait()
            host._end(None)
            await task
        found, _ = load_newest(tmp_path, d=1, digest=digest_of(node.cluster))
        assert found is not None
        assert found.step == 80

    run(main)


# What is said


WAITS = Waiting("models", 8, 3, 4, ("s3", "s4"), since=100.0)


def test_a_long_wait_is_said_once(puppet: Any, caplog: pytest.LogCaptureFixture) -> None:
    """After three seconds, again only when it changes, and when it is over."""
    caplog.set_level(logging.INFO)
    node = puppet()
    host = Host(node)
    node.waits, node.step = WAITS, 8
    late = WAITS.since + SLOW_SECONDS

    host._tell_waiting(late)
    assert messages(caplog) == []
    for seconds in (0.5, 1.0, 100.0):
        host._tell_waiting(late + seconds)
    sentence = "waits for 1 of 4 models of step 8: s3 (never seen), s4 (never seen)"
    assert messages(caplog) == [sentence]
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].__dict__["step"] == 8

    node.waits = Waiting("models", 8, 2, 4, ("s2", "s3", "s4"), since=100.0)
    host._tell_waiting(late + 101.0)
    assert len(messages(caplog)) == 2
    node.waits, node.step = None, 9
    for seconds in (102.0, 103.0):
        host._tell_waiting(late + seconds)
    assert messages(caplog)[2:] == ["goes on at step 9"]


def test_short_waits_are_not_said(puppet: Any, caplog: pytest.LogCaptureFixture) -> None:
    """However many steps there are: only what lasts is worth a line."""
    caplog.set_level(logging.INFO)
    node = puppet()
    host = Host(node)
    for step in range(20):
        node.waits = Waiting("models", step, 0, 4, ("s3",), since=float(step))
        host._tell_waiting(step + 0.9)

    assert messages(caplog) == []


def test_a_wait_is_long_by_what_is_usual(puppet: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Where gradients take eight seconds, eight seconds are not worth a line; three times are."""
    caplog.set_level(logging.INFO)
    node = puppet()
    host = Host(node)
    for seconds in (8.0, 0.1, 8.0, 0.1):  # Of every other wait: gathers are quick.
        node.progress.quorum_waits.observe(seconds)
    node.waits = WAITS

    host._tell_waiting(WAITS.since + 19.0)
    assert messages(caplog) == []
    host._tell_waiting(WAITS.since + 24.0)
    assert len(messages(caplog)) == 1


def test_silent_peers_are_said(
    run: Any, puppet: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A WARNING with the peer when one falls silent, an INFO when it is back."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        node, transport = puppet(), wire()
        host = Host(node)
        with hosted(host, transport):
            await transport.running.wait()
            node.last_seen["w1"] = 100.0
            host._tell_presence(100.0)
            node.progress.steps += 10
            host._tell_presence(104.0)
            node.last_seen["w1"] = 120.0
            host._tell_presence(120.0)

    run(main)
    assert messages(caplog) == [
        "w1 is silent: last seen 4 s ago; the reserve of workers is -3",
        "w1 is back; the reserve of workers is -2",
    ]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    assert caplog.records[0].__dict__["peer"] == "w1"


def test_a_variance_condition_is_said_when_it_changes(
    puppet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning once it fails, with the remedy, and a line when it holds again."""
    caplog.set_level(logging.INFO)
    node = puppet()
    host, condition = Host(node), node.progress.variance
    condition.excess = 2.0
    for state in (State.UNKNOWN, State.HOLDS, State.VIOLATED, State.VIOLATED, State.HOLDS):
        condition.state, condition.ratio, condition.since = state, 1.5, 7
        host._tell_variance()

    said = messages(caplog)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    assert said[0].startswith("variance condition: 1.5 over the last updates, failed at step 7")
    assert said[1] == "variance condition: holds, 1.5 over the last updates"
    assert caplog.records[0].__dict__["step"] == 7


def test_a_variance_condition_of_a_training_that_ends_is_no_warning(
    puppet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Near an optimum it fails whatever the settings are."""
    caplog.set_level(logging.INFO)
    node = puppet()
    node.progress.variance.state = State.FADED
    host = Host(node)
    for _ in range(2):
        host._tell_variance()

    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_refusal_is_said_with_peer_and_reason(
    run: Any, puppet: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the node refused or the transport; a flood is one line."""

    async def main() -> None:
        node = puppet()
        node.script[Received] = lambda event: [Refuse(event.peer, 3, Reason.EQUIVOCATION)]
        host, transport = Host(node), wire()
        host._refusals._clock = lambda: 5.0
        with hosted(host, transport):
            await transport.running.wait()
            for _ in range(100):
                host.received("w1", Gradient(3, ONE))
                host.refused("w2", Reason.MALFORMED, "frame 0 is no map")
            host._refusals._clock = lambda: 6.0
            host.received("w1", Gradient(3, ONE))

    run(main)
    assert messages(caplog) == [
        "refused w1: equivocation (step 3)",
        "refused w2: malformed (frame 0 is no map)",
        "refused w1: equivocation (step 3), and 99 more like it",
    ]
    assert caplog.records[0].__dict__["peer"] == "w1"
    assert caplog.records[0].__dict__["reason"] == "equivocation"


@pytest.mark.parametrize("reason", [Reason.LATE, Reason.STALE, Reason.DUPLICATE])
def test_what_any_slow_network_does_is_not_said(
    puppet: Any, caplog: pytest.LogCaptureFixture, reason: Reason
) -> None:
    """The metrics count it."""
    Host(puppet()).refused("w1", reason, "step 3")

    assert messages(caplog) == []


def test_the_lag_of_the_event_loop_is_measured(
    puppet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By how much a look comes late; one that comes early is not late.

    Nobody is called silent in a look that comes late: what was said meanwhile is not read yet.
    """
    late_by = [1.25, -0.1]
    lags: list[float] = []
    looks: list[float] = []

    async def main() -> None:
        host, timers = Host(puppet()), Timers(asyncio.get_running_loop())
        host._loop = timers  # type: ignore[assignment]

        async def late(seconds: float) -> None:
            if not late_by:
                raise asyncio.CancelledError
            timers.now += seconds + late_by.pop(0)

        monkeypatch.setattr(host, "_tell_waiting", lambda now: lags.append(host.lag_seconds))
        monkeypatch.setattr(host, "_tell_presence", looks.append)
        with monkeypatch.context() as patch, suppress(asyncio.CancelledError):
            patch.setattr(asyncio, "sleep", late)
            await host._watch()

    asyncio.run(main())
    assert lags == [pytest.approx(1.25), 0.0]
    assert len(looks) == 1


# The ways to end


def test_a_bug_in_the_node_ends_the_host_with_its_story(
    run: Any, puppet: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception comes out of run, and the last events are in the log."""

    def bug(event: Event) -> list[Effect]:
        raise AssertionError("a bug")

    async def main() -> None:
        node = puppet()
        host, transport = Host(node), wire()
        with hosted(host, transport) as task:
            await transport.running.wait()
            host.connected("w7")
            node.script[Received] = bug
            host.received("w1", Gradient(3, ONE))
            host.received("w1", Gradient(4, ONE))
            with pytest.raises(AssertionError, match=r"^a bug$"):
                await task
        assert len(node.events) == 2, "an event was met after the end"
        assert transport.calls == ["open", "run", "close"]

    run(main)
    [line] = messages(caplog, logging.ERROR)
    assert line.startswith("a bug: the last events were\n")
    assert "PeerConnected peer=w7" in line


@pytest.mark.parametrize("size", [1, INLINE_MAX])
def test_a_bug_in_an_aggregation_ends_the_host(
    run: Any, puppet: Any, wire: Any, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Small ones on the loop and large ones in the thread: never a node that waits for ever."""

    async def main() -> None:
        node, vectors = puppet(), (np.zeros(size, np.float32),) * 2
        node.first = [Aggregate(4, "krum", ("w1", "w2"), vectors, 1)]
        with (
            hosted(Host(node), wire()) as task,
            pytest.raises(ValueError, match="krum needs n >= "),
        ):
            await task

    run(main)
    assert messages(caplog, logging.ERROR)[0].startswith("a bug: ")


def test_a_task_that_fails_is_no_bug_of_ours(
    run: Any, puppet: Any, wire: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text comes out of run, for a restart to try again, and no story is told."""

    def gradient(vector: Any, step: int) -> Any:
        raise TaskError("task x: ValueError")

    async def main() -> None:
        node = puppet("w1")
        node.first = [ComputeGradient(0, ONE, None, 0.9)]
        with (
            hosted(Host(node, gradient=gradient), wire()) as task,
            pytest.raises(ByzsgdError, match=r"^task x: ValueError$") as error,
        ):
            await task
        assert error.value.exit_status == 1

    run(main)
    assert messages(caplog, logging.ERROR) == []


def test_a_node_that_must_not_go_on_ends_the_host(run: Any, puppet: Any, wire: Any) -> None:
    """With its sentence, as an error of the files: exit status 2, so that nobody restarts it."""

    async def main() -> None:
        node = puppet()
        node.first = [Stop("this node's cluster file differs")]
        transport = wire()
        with (
            hosted(Host(node), transport) as task,
            pytest.raises(ConfigError, match=r"^this node's cluster file differs$") as error,
        ):
            await task
        assert error.value.exit_status == 2
        assert transport.calls[-1] == "close"

    run(main)


def test_a_transport_that_breaks_ends_the_host(run: Any, puppet: Any, wire: Any) -> None:
    """With what it raised."""

    async def main() -> None:
        transport = wire(broken=ByzsgdError("the socket is gone"))
        with hosted(Host(puppet()), transport) as task:
            await transport.running.wait()
            transport.ended.set()
            with pytest.raises(ByzsgdError, match=r"^the socket is gone$"):
                await task

    run(main)


def test_a_transport_that_ends_by_itself_ends_the_host(run: Any, puppet: Any, wire: Any) -> None:
    """A node that hears nothing must not look alive."""

    async def main() -> None:
        transport = wire()
        with hosted(Host(puppet()), transport) as task:
            await transport.running.wait()
            transport.ended.set()
            with pytest.raises(ByzsgdError, match=r"^transport has finished unexpectedly$"):
                await task

    run(main)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_host_in_good_order(
    run: Any,
    puppet: Any,
    wire: Any,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run returns, the transport is closed, and nothing is met any more."""
    caplog.set_level(logging.INFO)
    timers: list[Any] = []

    class Resort:
        daemon = False

        def __init__(self, *arguments: Any) -> None:
            timers.append(arguments)

        def start(self) -> None:
            timers.append("started" if self.daemon else "a thread that keeps the process alive")

    monkeypatch.setattr(module, "Timer", Resort)

    async def main() -> None:
        node = puppet()
        host, transport = Host(node, stop_seconds=7.0), wire()
        with hosted(host, transport) as task:
            await transport.running.wait()
            os.kill(os.getpid(), number)
            await task
            host.connected("w1")
        assert node.events == []
        assert transport.calls == ["open", "run", "close"]

    run(main)
    assert messages(caplog) == ["stops: a signal asked for it"]
    assert timers == [(7.0, os._exit, (0,)), "started"]


def test_a_host_that_is_cancelled_meets_nothing_more(run: Any, puppet: Any, wire: Any) -> None:
    """What a transport or a timer still tells it is dropped: its sockets are closed."""

    async def main() -> None:
        node = puppet()
        host, transport = Host(node), wire()
        with hosted(host, transport) as task:
            await transport.running.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            host.received("w1", Pull(1))
        assert transport.calls == ["open", "run", "close"]
        assert node.events == []

    run(main)


def test_a_second_signal_ends_the_process_at_once(
    run: Any, puppet: Any, wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the status of a failure."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    monkeypatch.setattr(module, "Timer", lambda *arguments: threading.Thread())

    async def main() -> None:
        host, transport = Host(puppet()), wire()
        with hosted(host, transport) as task:
            await transport.running.wait()
            host._signalled()
            assert statuses == []
            host._signalled()
            assert statuses == [1]
            await task

    run(main)


STUCK = """
import asyncio, os, signal, threading
import numpy as np
from byzsgd.protocol import ComputeGradient, Worker
from byzsgd.simulation.cluster import without_keys
from byzsgd_daemons import logs
from byzsgd_daemons.host import Host

logs.configure("INFO")
nodes = [
    {"id": "s1", "role": "server", "address": "h:1"}, {"id": "w1", "role": "worker"},
]
cluster = without_keys({"f_servers": 0, "f_workers": 0, "task": "x", "nodes": nodes})

class Wire:
    async def open(self): ...
    async def run(self): await asyncio.Event().wait()
    def send(self, peers, message): ...
    def close(self): print("closed", flush=True)

def gradient(vector, step):
    os.kill(os.getpid(), signal.SIGTERM)
    if STUCK:
        threading.Event().wait()
    return vector, 0.0

worker = Worker("w1", cluster)
worker.start = lambda now: [ComputeGradient(0, np.float32([1]), None, 0.0)]
asyncio.run(Host(worker, gradient=gradient, stop_seconds=STOP_SECONDS).run(Wire()))
print("returned", flush=True)
"""


def stopped(*, stuck: bool) -> "subprocess.CompletedProcess[str]":
    # As long as Python may need to get to its end, or else longer than the test waits.
    stop_seconds = 3.0 if stuck else 2 * PATIENCE_SECONDS
    code = STUCK.replace("if STUCK", f"if {stuck}").replace("STOP_SECONDS", str(stop_seconds))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=PATIENCE_SECONDS,
    )


@pytest.mark.parametrize("stuck", [True, False])
def test_a_process_ends_in_time_whatever_its_threads_do(stuck: bool) -> None:
    """Python itself would wait for a gradient that never ends; nothing but one line is said."""
    done = stopped(stuck=stuck)

    assert done.returncode == 0
    assert done.stdout == "closed\nreturned\n"
    [line] = done.stderr.splitlines()
    assert "stops: a signal asked for it" in line
