"""What attacks on the memory of a node cost it, without the guard and with it: a table.

    python benchmarks/guard.py
    python benchmarks/guard.py --attack endless --guard on --seconds 5 --json

Each attack runs for some seconds against a transport in a process of its own, from another process
with a Byzantine peer's key or with none, while a correct peer asks something 50 times a second.
Memory is the peak of the resident set above what it was before the attack. ``idle`` attacks
nothing, and shows the CPU time that the guard takes.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop
import zmq

from byzsgd.cluster import Cluster
from byzsgd.messages import Hello, Message, Pull, Reason
from byzsgd.transport import ZeroMQ, identity_bytes, keys, malloc, queue_messages
from byzsgd.transport.connection import Connection
from byzsgd.wire import Layout, encode

D = 1_750_000
"""Coordinates: vectors of 7 MB."""

MIB = 1 << 20
BOOT = b"8 bytes!"
ASK_SECONDS = 0.02


@dataclass(frozen=True)
class Net:
    """A cluster of two servers and two workers on loopback, and everybody's keys."""

    pairs: dict[str, keys.KeyPair]
    mapping: dict[str, Any]

    @property
    def cluster(self) -> Cluster:
        return Cluster.from_mapping(self.mapping)

    def transport(self, identity: str, handlers: Any) -> ZeroMQ:
        return ZeroMQ(identity, self.cluster, self.pairs[identity].secret, D, handlers)

    def port(self, server: str) -> int:
        node = self.cluster.node(server)
        assert node is not None
        return node.publish_endpoint[1]

    def socket(self, kind: int, identity: str, server: str = "") -> "zmq.Socket[bytes]":
        """A socket with a node's keys, that will dial a server unless it is one."""
        made = zmq.Context.instance().socket(kind)
        made.linger = 0
        made.sndtimeo = 200
        made.curve_secretkey = self.pairs[identity].secret.encode()
        if server:
            made.curve_publickey = self.pairs[identity].public.encode()
            made.curve_serverkey = self.pairs[server].public.encode()
        else:
            made.curve_server = True
        return made


def new_net() -> Net:
    roles = {"s1": "server", "s2": "server", "w1": "worker", "w2": "worker"}
    pairs = {identity: keys.generate() for identity in roles}
    nodes: list[dict[str, Any]] = []
    for identity, role in roles.items():
        nodes.append({"id": identity, "role": role, "public_key": pairs[identity].public})
        if role == "server":
            nodes[-1]["address"] = f"127.0.0.1:{_free_port()}"
    mapping = {"f_servers": 0, "f_workers": 0, "task": "digits", "nodes": nodes}
    return Net(pairs, mapping)


# Below those of local clusters: a test runs this while others start daemons.
_ports = iter(range(10010 + os.getpid() % 400 * 20, 20000, 2))


def _free_port() -> int:
    for port in _ports:
        with suppress(OSError), socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", port))
            next_one.bind(("127.0.0.1", port + 1))
            return port
    raise SystemExit("no free ports")


# The attacks: each goes on until its process is ended


def endless(net: Net) -> None:
    """A worker whose message has 800 frames of a megabyte, where 7 are a gradient."""
    _endless(lambda: _dial(net, zmq.DEALER), [bytes(MIB)] * 800)


def named(net: Net) -> None:
    """The same, after a message that has told the server who it is."""
    _endless(lambda: _dial(net, zmq.DEALER, first=encode(Pull(0), BOOT)), [bytes(MIB)] * 800)


def tiny(net: Net) -> None:
    """A worker whose message has a million and a half empty frames."""
    _endless(lambda: _dial(net, zmq.DEALER), [b""] * 1_500_000)


def several(net: Net) -> None:
    """Ten connections of one worker, each with a message that does not end."""
    for _ in range(9):
        threading.Thread(target=endless, args=(net,), daemon=True).start()
    endless(net)


def server(net: Net) -> None:
    """A server that publishes a model of 800 megabytes to a worker."""
    publisher = net.socket(zmq.PUB, "s1")
    publisher.bind(f"tcp://127.0.0.1:{net.port('s1')}")
    frames = [zmq.Frame(bytes(MIB))] * 800
    while True:
        time.sleep(0.2)
        publisher.send_multipart([b"m", *frames], copy=False)


def subscriptions(net: Net) -> None:
    """A worker that subscribes to 200,000 topics."""
    while True:
        subscriber = _dial(net, zmq.SUB)
        with subscriber:
            for number in range(200_000):
                subscriber.subscribe(b"%064d" % number)
            time.sleep(10)


def strangers(net: Net) -> None:
    """Forty connections without a key, each with an unfinished command of a megabyte."""
    command = b"\x06" + MIB.to_bytes(8, "big") + bytes(MIB - 1)
    _crowd(net, 40, GREETING + command)


def crowd(net: Net) -> None:
    """Three thousand connections without a key, that say nothing after the greeting."""
    _crowd(net, 3000, GREETING)


def idle(_: Net) -> None:
    """Nothing."""
    while True:
        time.sleep(1)


ATTACKS = {
    attack.__name__: attack
    for attack in (
        endless, named, tiny, several, server, subscriptions, strangers, crowd, idle,
    )
}  # fmt: skip

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""ZMTP's, of a client."""


def _dial(net: Net, kind: int, first: Any = ()) -> "zmq.Socket[bytes]":
    dialled = net.socket(kind, "w1", "s1")
    dialled.sndhwm = 0  # Of subscriptions, and of what comes in the meantime.
    dialled.connect(f"tcp://127.0.0.1:{net.port('s1') + (kind == zmq.DEALER)}")
    if first:
        with suppress(zmq.Again):
            dialled.send_multipart(first)
    return dialled


def _endless(dial: Callable[[], "zmq.Socket[bytes]"], payload: list[bytes]) -> None:
    """Send one message after the other, each on a connection of its own."""
    frames = [zmq.Frame(payload[0])] * len(payload)
    while True:
        attacker = dial()
        monitor = attacker.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        with suppress(zmq.Again):
            attacker.send_multipart(frames, copy=False)
            # Sent is only what the other side has taken, or not wanted any more.
            monitor.poll(10_000)
        attacker.disable_monitor()
        attacker.close()
        monitor.close()


def _crowd(net: Net, size: int, says: bytes) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * size + 100,) * 2)
    open_: list[socket.socket] = []
    while True:
        for _ in range(size):
            with suppress(OSError):
                one = socket.create_connection(("127.0.0.1", net.port("s1") + 1), timeout=5)
                one.settimeout(0.05)
                open_.append(one)
                one.sendall(says)
        time.sleep(0.5)
        for one in open_[:-size]:
            one.close()
        del open_[:-size]


# The node that is attacked


@dataclass
class Victim:
    """Handlers that answer questions."""

    transport: ZeroMQ | None = None

    def received(self, peer: str, message: Message) -> None:
        if isinstance(message, Pull) and self.transport:
            self.transport.send((peer,), Hello(message.step, reply=True))

    def refused(self, peer: str, reason: Reason, detail: str) -> None: ...

    def connected(self, peer: str) -> None:
        if self.transport:
            self.transport.send((peer,), Hello(0))

    def disconnected(self, peer: str) -> None: ...


def run_victim(net: Net, identity: str, guarded: bool, pipe: Pipe) -> None:
    """Run a transport; at every word on the pipe say what it has counted, and what it costs."""
    malloc.tune()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    async def main() -> None:
        victim = Victim()
        victim.transport = net.transport(identity, victim)
        await victim.transport.open()
        run = asyncio.create_task(victim.transport.run())
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, pipe.recv):
            refused = victim.transport.statistics().refused
            counted = {f"{peer} {reason}": count for (peer, reason), count in refused.items()}
            pipe.send((counted, time.process_time(), len(list(Path("/proc/self/fd").iterdir()))))
        run.cancel()
        victim.transport.close()

    unwatched = mock.patch.object(Connection, "take", return_value=None)
    with suppress(asyncio.CancelledError, EOFError), nullcontext() if guarded else unwatched:
        uvloop.run(main())


# The correct peer


@dataclass
class Asker:
    """Handlers of a correct peer: what it asked, and how long each answer took."""

    asked: dict[int, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    heard: set[str] = field(default_factory=set)

    def received(self, peer: str, message: Message) -> None:
        self.heard.add(peer)
        if isinstance(message, Hello) and message.step in self.asked:
            self.seconds.append(time.perf_counter() - self.asked.pop(message.step))

    def refused(self, peer: str, reason: Reason, detail: str) -> None: ...
    def connected(self, peer: str) -> None:
        self.heard.add(peer)

    def disconnected(self, peer: str) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What an attack did."""

    peak_mib: float
    answered: float
    """Share of the correct peer's questions that were answered."""
    slowest_ms: float
    cpu: float
    """CPU time of the node over wall time."""
    descriptors: int
    """Open at the end, of the node."""
    refused: dict[str, int]


@dataclass(frozen=True)
class End:
    """When an attack ends."""

    seconds: float
    """Not before."""
    until: str = ""
    """What the node must have counted as refused, if anything."""
    count: int = 1
    """How often."""
    files: float = inf
    """How many files it may have open then."""

    async def is_reached(self, node: Pipe) -> bool:
        """Ask the node."""
        node.send("count")
        refused, _, descriptors = await asyncio.to_thread(node.recv)
        return refused.get(self.until, 0) >= self.count and descriptors <= self.files


async def measure(attack: str, guarded: bool, end: End) -> Outcome:
    """Run one attack."""
    net = new_net()
    victim_id, peer_id = ("w1", "s2") if attack == "server" else ("s1", "w2")
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    victim = spawn.Process(target=run_victim, args=(net, victim_id, guarded, theirs), daemon=True)
    victim.start()
    asker = Asker()
    peer = net.transport(peer_id, asker)
    await peer.open()
    run = asyncio.create_task(peer.run())
    attacker = spawn.Process(target=ATTACKS[attack], args=(net,), daemon=True)
    try:
        async with asyncio.timeout(60):
            while victim_id not in asker.heard:
                await asyncio.sleep(0.05)
        ours.send("before")
        _, cpu_before, _ = await asyncio.to_thread(ours.recv)
        before = _kib(victim.pid, "VmRSS")
        attacker.start()
        began, steps = time.perf_counter(), iter(range(1, 1 << 30))
        async with asyncio.timeout(end.seconds + 120):
            while time.perf_counter() - began < end.seconds or (
                end.until and not await end.is_reached(ours)
            ):
                step = next(steps)
                asker.asked[step] = time.perf_counter()
                peer.send((victim_id,), Pull(step))
                await asyncio.sleep(ASK_SECONDS)
        wall = time.perf_counter() - began
        ours.send("after")
        refused, cpu_after, descriptors = await asyncio.to_thread(ours.recv)
        peak = (_kib(victim.pid, "VmHWM") - before) / 1024
        answers = len(asker.seconds)
        return Outcome(
            peak, answers / (answers + len(asker.asked)), 1000 * max(asker.seconds, default=0),
            (cpu_after - cpu_before) / wall, descriptors, refused,
        )  # fmt: skip
    finally:
        for process in (attacker, victim):
            if process.pid is not None:
                process.kill()
                process.join()
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        peer.close()


def _kib(pid: int | None, key: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(key))


def settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="default: all")
    parser.add_argument("--guard", choices=("on", "off"), help="default: both")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each attack")
    parser.add_argument("--until", default="", help="go on until this was counted: 'w1 flood'")
    parser.add_argument("--count", type=int, default=1, help="so often")
    parser.add_argument("--files", type=int, default=inf, help="and no more are open after that")
    parser.add_argument("--json", action="store_true", help="one line of JSON a run, no table")
    return parser.parse_args()


def rows(chosen: argparse.Namespace) -> Iterator[tuple[str, str, Outcome]]:
    end = End(chosen.seconds, chosen.until, chosen.count, chosen.files)
    for attack in chosen.attack or ATTACKS:
        for guard in ("off", "on"):
            if chosen.guard in (None, guard):
                run = measure(attack, guard == "on", end)
                yield attack, guard, asyncio.run(run)


def main() -> None:
    chosen = settings()
    if not chosen.json:
        budget = identity_bytes(Layout(D), queue_messages(D)) / MIB
        print(f"vectors of {4 * D / 1e6:g} MB; budget of an identity {budget:.0f} MiB")
        print(f"{'attack':14}{'guard':6}{'peak MiB':>9}{'answered':>9}{'slowest ms':>11}{'CPU':>6}"
              f"{'files':>7}  refused")  # fmt: skip
    for attack, guard, found in rows(chosen):
        if chosen.json:
            print(json.dumps({"attack": attack, "guard": guard} | vars(found)))
        else:
            print(f"{attack:14}{guard:6}{found.peak_mib:9.1f}{found.answered:9.1%}"
                  f"{found.slowest_ms:11.0f}{found.cpu:6.2f}{found.descriptors:7}  {found.refused}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
