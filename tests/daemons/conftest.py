"""Cluster files on disk, a node that a test drives by hand, and a transport without a network."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from byzsgd.cluster import Cluster, Role
from byzsgd.messages import Message
from byzsgd.protocol import Aggregated, Effect, Event, GradientComputed, Node
from byzsgd.protocol.node import Waiting
from byzsgd.transport import Statistics, keys

PATIENCE_SECONDS = 240.0
"""Far above what anything here takes: only a wait that would be for ever runs into it."""


class Puppet(Node):
    """A node that does what the test has laid out for each event, and remembers all events."""

    def __init__(self, cluster: Cluster, identity: str = "s1") -> None:
        super().__init__(identity, cluster)
        self.script: dict[type[Event], Callable[[Event], list[Effect]]] = {}
        """What to do about an event of a kind."""
        self.first: list[Effect] = []
        """What to do at the start."""
        self.events: list[Event] = []
        self.met = asyncio.Event()
        self.waits: Waiting | None = None

    def start(self, now: float) -> list[Effect]:
        return self.first

    def handle(self, event: Event, now: float) -> list[Effect]:
        self.events.append(event)
        self.met.set()
        effects = self.script.get(type(event), lambda _: [])(event)
        self.trace.record(now, event, effects)
        return effects

    def waiting(self) -> Waiting | None:
        return self.waits

    def phase(self) -> str:
        return "puppet"

    def _message(self, peer: str, role: Role, message: Message, now: float) -> None: ...

    def _result(self, event: Aggregated | GradientComputed, now: float) -> None: ...

    def _overdue(self) -> None: ...

    def _connected(self, peer: str) -> None: ...

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def wait(self, kind: type[Event], count: int = 1) -> Event:
        """Wait until there were so many events of a kind, and return the last of them."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.of(kind)) < count:
                self.met.clear()
                await self.met.wait()
        return self.of(kind)[count - 1]


@dataclass
class Wire:
    """A transport that carries nothing: it remembers what was sent, and ends when told."""

    sent: list[tuple[tuple[str, ...], Message]] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    broken: BaseException | None = None
    """What ``run`` raises once it is ended."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        self.calls.append("open")

    async def run(self) -> None:
        self.calls.append("run")
        self.running.set()
        await self.ended.wait()
        if self.broken:
            raise self.broken

    def send(self, peers: Sequence[str], message: Message) -> None:
        self.sent.append((tuple(peers), message))

    def publish(self, message: Message) -> None:
        self.published.append(message)

    def new_life(self) -> None:
        self.calls.append("new life")

    def statistics(self) -> Statistics:
        return no_statistics()

    def close(self) -> None:
        self.calls.append("close")


def no_statistics() -> Statistics:
    return Statistics(
        messages=Counter(),
        bytes=Counter(),
        dropped={},
        refused={},
        last_seen={},
        boot={},
        connected=frozenset(),
    )


@dataclass
class Files:
    """A cluster file, and the secret keys of its nodes, in a folder."""

    path: Path
    secrets: dict[str, str]

    def change(self, old: str, new: str) -> None:
        """Replace what stands in the file exactly once."""
        text = self.path.read_text()
        assert text.count(old) == 1
        self.path.write_text(text.replace(old, new))

    def secret(self, identity: str) -> Path:
        """The file of a node's secret key."""
        return self.path.parent / "keys" / f"{identity}.key"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A vanilla cluster, s1 and w1 and an operator, that learns the quadratic."""
    (tmp_path / "keys").mkdir()
    lines = ["f_servers = 0", "f_workers = 0", 'task = "quadratic"', "seed = 3"]
    secrets = {}
    for identity, role in (("s1", "server"), ("w1", "worker"), ("op", "operator")):
        pair = keys.generate()
        keys.write_secret(tmp_path / "keys" / f"{identity}.key", pair.secret)
        secrets[identity] = pair.secret
        lines += ["", "[[nodes]]", f'id = "{identity}"', f'role = "{role}"']
        lines += [f"public_key = '{pair.public}'"]
        lines += ['address = "127.0.0.1:7000"'] * (role == "server")
    path = tmp_path / "cluster.toml"
    path.write_text("\n".join(lines) + "\n")
    return Files(path, secrets)


@pytest.fixture
def puppet(cluster: Callable[..., Cluster]) -> Callable[..., Puppet]:
    """Makes nodes that a test drives."""
    return lambda identity="s1", **changes: Puppet(cluster(**changes), identity)


@pytest.fixture
def wire() -> type[Wire]:
    """Makes transports that carry nothing."""
    return Wire


@pytest.fixture
def statistics() -> Statistics:
    """Of a transport on which nothing has happened."""
    return no_statistics()


@pytest.fixture
def python() -> Callable[[str], str]:
    """Runs code in a Python of its own, and returns what it prints."""

    def run(code: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
