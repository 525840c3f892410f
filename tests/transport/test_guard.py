"""The guard against peers that libzmq's own limits do not stop, on real sockets."""

import asyncio
import errno
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from tests.transport.watching import connections, until

from byzsgd import memory
from byzsgd.messages import Gradient, Pull, Reason
from byzsgd.transport import CONNECTIONS_MAX, LOGIN_BYTES, STRANGER, STRANGERS_MAX, identity_bytes
from byzsgd.transport.connection import SUPPORTED, Connection
from byzsgd.transport.guard import SUBSCRIPTION_BYTES, Guard, message_bytes, surplus, wire_bytes
from byzsgd.wire import Layout, encode

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="watching connections takes Linux's TCP_INFO")

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "guard.py"

BOOT = b"8 bytes!"
MIB = 1 << 20

D_OF_BENCHMARK, QUEUE = 1_750_000, 2

OF_AN_IDENTITY = identity_bytes(Layout(D_OF_BENCHMARK), QUEUE) + memory.OVERSHOOT_BYTES
"""What the formula of docs/reliability.md allows one identity on one connection."""

OF_CONNECTIONS = (CONNECTIONS_MAX - 1) * memory.connection_bytes(D_OF_BENCHMARK)
"""What more it allows one that has as many connections as it may."""

MARGIN_MIB = 64
"""What may be held beyond the formula. Without a guard it is 600."""


@pytest.mark.parametrize(
    ("attack", "refusal", "budget"),
    [
        ("several", "w1 flood", OF_AN_IDENTITY + OF_CONNECTIONS),
        ("server", "s1 flood", OF_AN_IDENTITY),
        ("subscriptions", "w1 malformed", SUBSCRIPTION_BYTES),
        ("strangers", "stranger flood", 0),
        ("crowd", "stranger flood", 0),
    ],
)
def test_memory_stays_bounded_and_others_are_served(attack, refusal, budget) -> None:
    """Real processes: the attack is cut off and counted, and a correct peer has its answers."""
    words = ["--attack", attack, "--guard", "on", "--seconds", "1", "--until", refusal, "--json"]
    if attack == "crowd":
        # Those that were cut are closed, or this never ends. At a look of a busy guard there may
        # be more, but not at all of them.
        words += ["--count", "1000", "--files", str(3 * 2 * STRANGERS_MAX + 200)]
    ran = subprocess.run(
        [sys.executable, BENCHMARK, *words], capture_output=True, text=True, timeout=240, check=True
    )
    found = json.loads(ran.stdout)

    assert found["refused"][refusal] > 0
    assert found["peak_mib"] <= budget / MIB + MARGIN_MIB
    assert found["answered"] > 0.5


def test_every_byte_of_a_messages_frames_is_accounted_for(net, outsiders, monkeypatch) -> None:
    """However long frames are: or a correct peer would be over its budget one day."""
    # What is allowed for heartbeats would in time make up for bytes that are lacking.
    monkeypatch.setattr("byzsgd.transport.guard.HEARTBEAT_BYTES_PER_SECOND", 0)
    d = 300_000

    async def main() -> None:
        async with net.running("s1", d=d) as (s1, at_s1):
            peer = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            pull = encode(Pull(0), BOOT)
            peer.send_multipart(pull)
            await at_s1.message(Pull)
            watched = await _connection(s1, "w1")
            first = wire_bytes(map(len, pull))
            await until(lambda: watched.credit == first)
            login = watched.undelivered
            gradient = encode(Gradient(1, np.zeros(d, dtype=np.float32)), BOOT)
            messages = [[bytes(size), b"", b"x" * 222] for size in (0, 1, 221, 222, 223)] * 100
            messages += [gradient, [bytes(MIB)], gradient, encode(Pull(9), BOOT)]
            for message in messages:
                peer.send_multipart(message)
            await at_s1.message(Pull)
            sent = sum(wire_bytes(map(len, message)) for message in messages)
            await until(lambda: (watched.credit, watched.undelivered) == (first + sent, login))

    asyncio.run(main())


def test_who_floods_is_cut_off_banned_and_let_in_again(net, outsiders) -> None:
    """Counted once, by peer and reason; its logins are refused for a while; others go on."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("w2") as (w2, at_w2):
            await at_w2.wait(lambda: "s1" in at_w2.connected_)
            w2.send(("s1",), Pull(0))
            assert await at_s1.message(Pull) == ("w2", Pull(0))
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            monitor = outsiders.monitor(liar, zmq.EVENT_DISCONNECTED)
            liar.send_multipart([zmq.Frame(bytes(MIB))] * 500, copy=False)
            await at_s1.wait(lambda: s1.statistics().refused.get(("w1", Reason.THROTTLED)))
            assert s1.statistics().refused["w1", Reason.FLOOD] == 1
            assert at_s1.refused_[0][:2] == ("w1", Reason.FLOOD)
            assert await asyncio.to_thread(monitor.poll, 30_000)

            w2.send(("s1",), Pull(1))
            assert await at_s1.message(Pull) == ("w2", Pull(1))
            assert not at_w2.disconnected_
            liar.close()
            again = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            again.send_multipart(encode(Pull(2), BOOT))
            assert await at_s1.message(Pull) == ("w1", Pull(2))

    asyncio.run(main())


def test_the_guard_works_while_the_event_loop_does_not(net, outsiders) -> None:
    """A flood is cut off while the loop is busy with one thing, and counted afterwards."""

    async def main() -> None:
        async with net.running("s1") as (_, at_s1):
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            monitor = outsiders.monitor(liar, zmq.EVENT_DISCONNECTED)
            liar.send_multipart([zmq.Frame(bytes(MIB))] * 500, copy=False)
            assert monitor.poll(30_000)  # Blocks the loop: that is the point.
            await at_s1.wait(lambda: at_s1.refused_)
            assert at_s1.refused_[0][:2] == ("w1", Reason.FLOOD)

    asyncio.run(main())


def test_who_sends_more_than_a_slow_node_reads_is_cut_off_and_not_blamed(net, outsiders) -> None:
    """Finished messages, as they come from a correct peer after a pause of the node or the net."""
    d = 300_000
    gradients = [encode(Gradient(step, np.zeros(d, dtype=np.float32)), BOOT) for step in range(9)]

    async def main() -> None:
        async with net.running("s1", d=d) as (s1, at_s1):
            peer = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            monitor = outsiders.monitor(peer, zmq.EVENT_DISCONNECTED)
            for gradient in gradients:
                peer.send_multipart(gradient)
            assert monitor.poll(30_000)  # Blocks the loop: the node reads nothing.
            await at_s1.wait(lambda: at_s1.refused_)
            assert at_s1.refused_[0][:2] == ("w1", Reason.BEHIND)
            assert await at_s1.message(Gradient)
            peer.send_multipart(encode(Pull(2), BOOT))  # It is back by itself.
            assert await at_s1.message(Pull) == ("w1", Pull(2))
            assert s1.statistics().refused == {("w1", Reason.BEHIND): 1}

    asyncio.run(main())


def test_a_connection_that_is_never_read_blames_nobody(net, outsiders, monkeypatch) -> None:
    """It cannot be said what it held."""
    monkeypatch.setattr("byzsgd.transport.guard.TRIAL_SECONDS", 0.1)

    async def main() -> None:
        async with net.running("s1") as (s1, _):
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            liar.send_multipart([zmq.Frame(bytes(MIB))] * 500, copy=False)
            deadline = time.monotonic() + 30
            while not s1.statistics().refused:
                assert time.monotonic() < deadline
                time.sleep(0.001)  # Blocks the loop.
            assert s1.statistics().refused == {("w1", Reason.BEHIND): 1}

    asyncio.run(main())


def test_of_too_many_connections_those_of_the_largest_crowd_go() -> None:
    """The oldest of the address that has most; a lonely one at another address stays."""
    crowd = [SimpleNamespace(address="198.51.100.1", since=float(n)) for n in range(10)]
    lonely = SimpleNamespace(address="192.0.2.7", since=-1.0)

    assert surplus([*crowd, lonely], 11) == []
    assert surplus([*crowd, lonely], 8) == crowd[:3]
    assert surplus([lonely], 0) == [lonely]
    among_equals = {surplus([crowd[0], lonely], 1)[0].address for _ in range(100)}
    assert len(among_equals) == 2


def test_a_stranger_may_say_no_more_than_a_login(net) -> None:
    """A first command that is longer is not waited for; a silent stranger may stay a while."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            address = ("127.0.0.1", net.port("s1") + 1)
            with socket.create_connection(address) as talker, socket.create_connection(address):
                talker.sendall(greeting + b"\x06" + MIB.to_bytes(8, "big") + bytes(LOGIN_BYTES))
                await at_s1.wait(lambda: at_s1.refused_)
                assert at_s1.refused_[0][:2] == (STRANGER, Reason.FLOOD)
                assert s1.statistics().refused == {(STRANGER, Reason.FLOOD): 1}

    asyncio.run(main())


def test_of_too_many_connections_the_oldest_go(net, outsiders) -> None:
    """A peer has so many at a time; the newest is the one that its owner needs."""

    async def main() -> None:
        async with net.running("s1") as (_, at_s1):
            dialled = []
            for number in range(CONNECTIONS_MAX + 2):
                dialled.append(outsiders.dial(zmq.DEALER, "s1", net.keys["w1"]))
                dialled[-1].send_multipart(encode(Pull(number), BOOT))
                assert await at_s1.message(Pull) == ("w1", Pull(number))
            await at_s1.wait(lambda: at_s1.refused_)
            assert at_s1.refused_[0][:2] == ("w1", Reason.FLOOD)
            dialled[-1].send_multipart(encode(Pull(99), BOOT))
            await at_s1.wait(lambda: ("w1", Pull(99)) in at_s1.received_)

    asyncio.run(main())


def test_connections_that_are_gone_leave_nothing_behind(net, outsiders) -> None:
    """No descriptor stays open, and none is open after the end."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            for number in range(10):
                peer = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
                peer.send_multipart(encode(Pull(number), BOOT))
                assert await at_s1.message(Pull) == ("w1", Pull(number))
                peer.close()
            await until(lambda: not connections(s1))

    def open_afterwards() -> int:
        asyncio.run(main())
        outsiders.context.destroy()
        return _descriptors()

    before = open_afterwards()  # What pyzmq opens once in a process is open from here on.
    outsiders.context = zmq.Context()
    assert open_afterwards() <= before


def test_only_a_connection_of_the_watched_port_is_taken(tmp_path) -> None:
    """The descriptor may be somebody else's by the time that its number is heard."""
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "file").open("w") as file:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as there:
            here, _ = listener.accept()
            with here:
                before = _descriptors()
                for fd in (file.fileno(), listener.fileno(), 10_000):
                    assert Connection.take(fd, (0, 0), 0.0) is None
                assert _descriptors() == before
                assert Connection.take(here.fileno(), (port + 1, 0), 0.0) is None
                assert Connection.take(there.fileno(), (port, 0), 0.0) is None
                taken = Connection.take(here.fileno(), (port, 0), 0.0)
                assert taken is not None
                there.sendall(b"12345")
                _wait_for_bytes(taken, 5)
                assert (taken.logged_in, taken.undelivered, taken.held()) == (False, 5, 0)
                assert here.recv(5) == b"12345"
                assert taken.held() == 5
                taken.cut()
                assert there.recv(1) == b""
                taken.close()


def test_where_nothing_can_be_counted_messages_still_go_through(net, monkeypatch) -> None:
    """The guard of another system hands on what sockets tell, and looks at no connection."""
    monkeypatch.setattr(Guard.__init__, "__kwdefaults__", {"counting": False})

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("w1") as (w1, at_w1):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            w1.send(("s1",), Pull(1))
            assert await at_s1.message(Pull) == ("w1", Pull(1))
            assert not connections(s1)

    asyncio.run(main())


def test_bytes_on_the_wire() -> None:
    """33 bytes of CURVE a frame, and two or nine of ZMTP."""
    assert wire_bytes([]) == 0
    assert wire_bytes([0, 222, 223]) == (33 + 2) + (255 + 2) + (256 + 9)
    assert identity_bytes(Layout(3), 1) > 3 * message_bytes(Layout(3))


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _connection(transport, peer: str) -> Connection:
    await until(lambda: any(connection.peer == peer for connection in connections(transport)))
    return next(each for each in connections(transport) if each.peer == peer)


def _wait_for_bytes(connection: Connection, count: int) -> None:
    deadline = time.monotonic() + 30
    while connection.received < count:
        assert time.monotonic() < deadline
        connection.look()


def test_who_says_too_much_is_cut_off_and_nobody_else(net, outsiders, monkeypatch) -> None:
    """Small and well-formed messages, but too many: the rest is refused, and others are heard."""
    monkeypatch.setattr("byzsgd.transport.zeromq.MESSAGES_BURST", 50)
    monkeypatch.setattr("byzsgd.transport.zeromq.MESSAGES_PER_SECOND", 0.001)

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("w2") as (w2, at_w2):
            await at_w2.wait(lambda: "s1" in at_w2.connected_)
            talker = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            for step in range(60):
                talker.send_multipart(encode(Pull(step), BOOT))
            await at_s1.wait(lambda: any(who == "w1" for who, *_ in at_s1.refused_))
            assert [who for who, _ in at_s1.received_] == ["w1"] * 50
            assert {(who, why) for who, why, _ in at_s1.refused_} == {("w1", Reason.FLOOD)}

            # The login that follows is refused: the peer stays out for a while.
            await at_s1.wait(lambda: s1.statistics().refused.get(("w1", Reason.THROTTLED), 0) > 0)
            w2.send(["s1"], Pull(7))
            await at_s1.wait(lambda: ("w2", Pull(7)) in at_s1.received_)

    asyncio.run(main())


def test_a_server_that_cannot_be_dialled_again_now_is_dialled_later(net, monkeypatch) -> None:
    """There may be no descriptor left for a moment."""

    async def main() -> None:
        async with net.running("s1"), net.running("w1") as (w1, at_w1):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            w1._hang_up("s1")
            channel = w1._channel
            monkeypatch.setattr(w1, "_channel", raising(zmq.ZMQError(errno.EMFILE)))
            monkeypatch.setattr("byzsgd.transport.zeromq.RECONNECT_MAX_MS", 10)
            with pytest.raises(zmq.ZMQError):
                w1._redial("s1")
            monkeypatch.undo()
            assert w1._channel == channel
            await at_w1.wait(lambda: at_w1.connected_.count("s1") == 2)

    asyncio.run(main())


def raising(error: Exception):
    """A function that raises an error."""

    def raises(*_: object) -> None:
        raise error

    return raises
