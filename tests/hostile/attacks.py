"""Attacks on running daemons, each for some seconds, in a process of their own.

    python -m tests.hostile.attacks CLUSTER.toml ATTACK --parameters D --seconds S

The last worker and the last server of the cluster are the attacker's: it has their keys, and no
daemon of theirs may run. It is as nice as can be, and its rate has a limit: it shares the machine
with those whom it attacks. The last line of its output says what it sent and its CPU time.
"""

import argparse
import itertools
import json
import os
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import zmq
from tests.hostile import frames, raw
from tests.hostile.field import Field

SMALL, LARGE_BYTES = 2000.0, 64e6
"""Messages a second of a flood, and bytes a second where they are large."""

OTHER_HOST = "127.0.0.9"
"""Where HTTP is attacked from: one address has a limit, and whoever watches comes from another."""

BOTH = ("publish_endpoint", "request_endpoint")

Attack = Callable[[Field], None]


# Without a key


def strangers(field: Field) -> None:
    """Random bytes, HTTP, TLS, ZMTP/1.0, half a handshake in every state, absurd lengths."""
    raw.crowd(field, field.addresses(*BOTH), raw.openings)


def silence(field: Field) -> None:
    """Thousands of connections that say nothing."""
    once = lambda: iter([b""])  # noqa: E731
    addresses = field.addresses(*BOTH)
    raw.crowd(field, addresses, once, open_max=4000, per_second=1500)


def churn(field: Field) -> None:
    """Connections that end as soon as they begin."""
    once = lambda: iter([raw.greeting()])  # noqa: E731
    addresses = field.addresses(*BOTH)
    raw.crowd(field, addresses, once, open_max=4, per_second=1500)


def slow(field: Field) -> None:
    """A greeting, and then a byte now and then."""
    once = lambda: iter([raw.greeting() + b"\x06"])  # noqa: E731
    raw.crowd(field, field.addresses(*BOTH), once, drip=b"\0")


def unfinished(field: Field) -> None:
    """First commands of a megabyte that lack their last byte."""
    once = lambda: iter([raw.large_command()])  # noqa: E731
    addresses = field.addresses("request_endpoint")
    raw.crowd(field, addresses, once, open_max=200, per_second=60)


def http(field: Field) -> None:
    """Thousands of connections to the HTTP port: silent, slow, endless and greedy ones."""

    def openings() -> Iterator[bytes]:
        yield b""
        yield b"GET /metrics HTTP/1.1\r\nX-A: "
        yield b"GET /metrics HTTP/1.1\r\n\r\n" * 200
        yield b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000
        yield b"\xff" * 100_000

    honest = [node for node in field.cluster.nodes if node.http]
    honest = [node for node in honest if node.id not in (field.worker, field.server)]
    addresses = [(host, int(port)) for host, _, port in (n.http.rpartition(":") for n in honest)]
    raw.crowd(
        field, addresses, openings, open_max=2000, per_second=800, drip=b"x", source=OTHER_HOST
    )


def unknown_keys(field: Field) -> None:
    """Logins with keys that are not in the cluster file."""
    while not field.is_over():
        for node in field.victims:
            kind = random.choice((zmq.DEALER, zmq.SUB))
            field.dial(kind, "stranger", node)
            field.sent += 1
        field.drop_sockets(80)
        field.pace(100)


def wrong_server_key(field: Field) -> None:
    """Logins of a member that take the server for another one."""
    while not field.is_over():
        for node in field.victims:
            field.dial(zmq.DEALER, field.worker, node, key=zmq.curve_keypair()[0])
            field.sent += 1
        field.drop_sockets(80)
        field.pace(100)


# With a worker's key, or an operator's for what gets its sender banned


OPERATORS = ("logins", "endless", "endless-empty", "never-reads")
"""Identities of operators that attack under the name of their attack."""


def logins(field: Field) -> None:
    """A member that logs in again and again."""
    while not field.is_over():
        for node in field.victims:
            socket = field.dial(zmq.DEALER, "logins", node)
            socket.send_multipart(frames.hello(0, field.cluster.digests()))
            field.sent += 1
        field.drop_sockets(100)
        field.pace(200)


def malformed(field: Field) -> None:
    """Frames of every kind that are no message."""
    dealers = field.dealers(field.worker)
    for parts in _while(field, lambda: frames.malformed("gradient", field.d)):
        field.send(dealers, parts, _rate(parts))


def too_long(field: Field) -> None:
    """Frames above the limit: the connection is cut, and made again."""
    dealers = field.dealers(field.worker)
    parts = [b"x" * (2 * raw.MIB)]
    while not field.is_over():
        field.send(dealers, parts, 10)


def not_finite(field: Field) -> None:
    """Gradients with one coordinate that is no number."""
    dealers = field.dealers(field.worker)
    for step, bad in zip(itertools.count(), itertools.cycle(("nan", "inf", "-inf")), strict=False):
        if field.is_over():
            return
        payload = frames.filled(field.d - 1, 1.0) + frames.filled(1, float(bad))
        parts = frames.vector("gradient", step, payload)
        field.send(dealers, parts, _rate(parts))


def far_ahead(field: Field) -> None:
    """Valid gradients of steps that nobody has come to, as large as numbers may be."""
    dealers = field.dealers(field.worker)
    payload = frames.filled(field.d, 3e38)
    for n in itertools.count():
        if field.is_over():
            return
        step = random.choice((2**53 - 1 - n, n, 10**6 + n, random.randrange(2**53)))
        parts = frames.vector("gradient", step, payload)
        field.send(dealers, parts, _rate(parts))


def equivocation(field: Field) -> None:
    """Two different votes for the steps to come, again and again."""
    dealers = field.dealers(field.worker)
    while not field.is_over():
        for step, value in itertools.product(range(0, 4000, 7), (1.0, -1.0)):
            parts = frames.vector("gradient", step, frames.filled(field.d, value))
            field.send(dealers, parts, _rate(parts))
            if field.is_over():
                return


def wrong_role(field: Field) -> None:
    """A worker that votes as a server does."""
    dealers = field.dealers(field.worker)
    while not field.is_over():
        for kind in ("model", "gather"):
            parts = frames.vector(kind, 5, frames.filled(field.d, 1.0))
            field.send(dealers, parts, _rate(parts))


def small_talk(field: Field) -> None:
    """Hellos and pulls as fast as they can be made; no answer is ever read."""
    dealers = field.dealers(field.worker, rcvhwm=1)
    while not field.is_over():
        field.send(dealers, [frames.header("pull", 0)], 2 * SMALL)
        parts = [frames.header("hello", 0, reply=False, digests=field.cluster.digests())]
        field.send(dealers, parts, 2 * SMALL)


def endless(field: Field) -> None:
    """A message of 300 frames of a megabyte: as good as one that never ends."""
    _endless(field, "endless", bytes(raw.MIB), 300)


def endless_empty(field: Field) -> None:
    """A message of 300,000 empty frames."""
    _endless(field, "endless-empty", b"", 300_000)


def _endless(field: Field, identity: str, part: bytes, frames: int) -> None:
    dealers = field.dealers(identity, sndhwm=0)
    while not field.is_over():
        for dealer in dealers:
            _send_long(dealer, part, frames)
            field.sent += frames
        # libzmq sends nothing of a message before all of it is there; it then takes its time.
        field.rest(3.0)


def _send_long(socket: "zmq.Socket[bytes]", part: bytes, frames: int) -> None:
    """Send a message of many frames, which are all the same memory."""
    frame = zmq.Frame(part, copy=False)
    for _ in range(frames - 1):
        socket.send(frame, zmq.SNDMORE, copy=False)
    socket.send(frame, copy=False)


PINGS: Mapping[str, int] = {"heartbeat_ivl": 1, "heartbeat_timeout": 60_000, "sndhwm": 0}
"""Socket options: a heartbeat in every millisecond."""


def pings(field: Field) -> None:
    """Heartbeats among more messages than a queue holds, from a process that ends in the midst."""
    while not field.is_over():
        if os.fork() == 0:
            field.context = zmq.Context()
            dealers = field.dealers(field.worker, **PINGS)
            time.sleep(0.5)
            _ping_and_end(dealers, [frames.header("pull", 0)])
        os.wait()
        field.sent += 400 * len(field.victims)
        field.rest(1.0)


def _ping_and_end(sockets: "list[zmq.Socket[bytes]]", parts: list[bytes]) -> None:
    for n in range(400):
        for socket in sockets:
            socket.send_multipart(parts)
        if n % 20 == 0:
            time.sleep(0.0015)
    os._exit(0)


def never_reads(field: Field) -> None:
    """Pulls on many connections, and never reads an answer; nor a published model."""
    dealers = []
    for _ in range(7):
        dealers += field.dealers("never-reads", rcvhwm=1, rcvbuf=4096)
        for node in field.victims:
            field.dial(zmq.XSUB, field.worker, node, rcvhwm=1, rcvbuf=4096).send(b"\1m")
    while not field.is_over():
        field.send(dealers, [frames.header("pull", 0)], 200)


def storm(field: Field) -> None:
    """Subscriptions to a hundred thousand topics."""
    while not field.is_over():
        sockets = [field.dial(zmq.XSUB, field.worker, node, sndhwm=0) for node in field.victims]
        for n in range(25_000):
            for socket in sockets:
                socket.send(b"\1m%063d" % n)
                field.sent += 1
            field.pace(50_000)
            if field.is_over():
                return
        time.sleep(1.0)
        for socket in sockets:
            socket.close(0)


# With a server's key, towards servers


def lying_server(field: Field) -> None:
    """All of this as a server: malformed, not finite, far ahead, equivocal votes and hellos."""
    dealers = field.dealers(field.server)
    for n, parts in enumerate(_while(field, lambda: _server_talk(field.d))):
        field.send(dealers, parts, _rate(parts))
        if n % 50 == 0:
            field.send(dealers, frames.hello(0, {"seed": b"lies"}), SMALL)
            field.send(dealers, frames.hello(2**53 - 1, field.cluster.digests()), SMALL)


def _server_talk(d: int) -> Iterator[list[bytes]]:
    yield from frames.malformed("gather", d)
    for kind in ("gather", "model"):
        for step in (0, 1, 10**6, 2**53 - 1):
            for value in (3e38, -3e38, float("nan"), float("inf")):
                yield frames.vector(kind, step, frames.filled(d, value))
    for step in range(0, 2000, 50):
        yield frames.vector("gather", step, frames.filled(d, 1.0))
        yield frames.vector("gather", step, frames.filled(d, 2.0))


# In a server's place, towards workers and servers


def bound_nonsense(field: Field) -> None:
    """A server whose ports answer with everything but a handshake."""
    address = field.member(field.server).request_endpoint
    raw.listen(field, address)


def bound_liar(field: Field) -> None:
    """A server with its own key that sends all of this to everybody who dials it."""
    publisher, router, peers = _bound(field)
    for parts in _while(field, lambda: _server_talk(field.d)):
        field.send([publisher], [b"m", *parts], _rate(parts))
        field.send([publisher], [b"x", *parts], _rate(parts))
        _meet(router, peers)
        for peer in peers:
            field.send([router], [peer, *parts], _rate(parts))


def bound_endless(field: Field) -> None:
    """A server whose published model never ends."""
    publisher, router, peers = _bound(field)
    while not field.is_over():
        publisher.send(b"m", zmq.SNDMORE)
        _send_long(publisher, bytes(raw.MIB), 300)
        field.sent += 300
        field.rest(3.0)
        _meet(router, peers)


def bound_pings(field: Field) -> None:
    """A server with heartbeats among its models, whose process ends in the midst, for good."""
    if os.fork() == 0:
        field.context = zmq.Context()
        publisher, _, _ = _bound(field, **PINGS)
        _ping_and_end([publisher], [b"m", frames.header("pull", 0)])
    os.wait()
    field.sent += 400
    field.rest(field.seconds)


def _bound(
    field: Field, **options: int
) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes], set[bytes]]":
    """A server's sockets, and the routes to all who have dialled it: every correct node does."""
    member = field.member(field.server)
    sockets = []
    for kind, (host, port) in (
        (zmq.PUB, member.publish_endpoint),
        (zmq.ROUTER, member.request_endpoint),
    ):
        socket = field.socket(kind, field.server, **{"sndhwm": 4, **options})
        socket.curve_server = True
        socket.bind(f"tcp://{host}:{port}")
        sockets.append(socket)
    publisher, router = sockets
    peers: set[bytes] = set()
    expected = field.cluster.n_servers - 1 + field.cluster.n_workers - 1
    # Long enough for a handshake that is given up and the longest pause before the next.
    latest = time.monotonic() + 8
    while len(peers) < expected and time.monotonic() < latest:
        router.poll(100)
        _meet(router, peers)
    field.begin()
    return publisher, router, peers


def _meet(router: "zmq.Socket[bytes]", peers: set[bytes]) -> None:
    """Learn the routes of those who speak; what they say is not read."""
    while router.poll(0):
        peers.add(router.recv_multipart()[0])


# What attacks have in common


def _rate(parts: list[bytes]) -> float:
    """Messages of this size a second."""
    return min(SMALL, LARGE_BYTES / max(sum(map(len, parts)), 1))


def _while(field: Field, talk: Callable[[], Iterator[list[bytes]]]) -> Iterator[list[bytes]]:
    """What there is to say, over and over until the attack is over."""
    while True:
        for parts in talk():
            if field.is_over():
                return
            yield parts


ATTACKS: Mapping[str, Attack] = {
    attack.__name__.replace("_", "-"): attack
    for attack in (
        strangers, silence, churn, slow, unfinished, http, unknown_keys, wrong_server_key, logins,
        malformed, too_long, not_finite, far_ahead, equivocation, wrong_role, small_talk, pings,
        endless, endless_empty, never_reads, storm, bound_nonsense, bound_liar, lying_server,
        bound_endless, bound_pings,
    )
}  # fmt: skip
"""By name."""

BEGIN_WHEN_DIALLED = (bound_liar, bound_endless, bound_pings)
"""They have to wait for correct nodes to come."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cluster", type=Path)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=10**9, help="end once so much was sent")
    arguments = parser.parse_args()
    os.nice(19)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    field = Field(arguments.cluster, arguments.seconds, arguments.count, arguments.parameters)
    attack = ATTACKS[arguments.attack]
    if attack not in BEGIN_WHEN_DIALLED:
        field.begin()
    attack(field)
    field.close()
    print(json.dumps({"sent": field.sent, "cpu_seconds": round(time.process_time(), 2)}))


if __name__ == "__main__":
    main()
