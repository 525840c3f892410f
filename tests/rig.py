"""The daemons of a cluster on loopback, for tests and benchmarks to start, watch and kill."""

import asyncio
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from byzsgd.cluster import Cluster, Member, Role
from byzsgd_daemons import init, initial, watch
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import Daemons, free_addresses

PATIENCE_SECONDS = 120.0
"""Far above what anything here takes: only a wait that would be for ever runs into it."""

LOOK_SECONDS = 0.05
"""How often a condition is looked at that another process makes true."""


@dataclass
class Rig:
    """The daemons of one cluster."""

    file: Path
    cluster: Cluster
    daemons: Daemons
    theta_0: Path

    async def start(self, *identities: str, more: tuple[str, ...] = ()) -> None:
        """Start the daemons of some nodes."""
        for identity in identities:
            role = self.cluster.role(identity)
            assert role is not None
            # Built once, and not by every server in a process of its own.
            theta_0 = ("--initial", str(self.theta_0)) if role is Role.SERVER else ()
            await self.daemons.start(role.value, identity, *theta_0, *more)

    async def start_all(self, *more: str) -> None:
        """Start every server and worker."""
        await self.start(*self.cluster.servers, *self.cluster.workers, more=more)

    async def status(self, identity: str) -> Any:
        """What a node says of itself, once it answers: on a busy machine not at every look."""
        return await self.wait_for(identity, lambda _: True)

    async def step(self, identity: str) -> int:
        """The step that a node is at."""
        return int((await self.status(identity))["step"])

    async def wait_for(self, identity: str, condition: Callable[[dict[str, Any]], object]) -> Any:
        """The first status of a node for which a condition holds."""
        node = self.cluster.node(identity)
        assert node is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                status = await asyncio.to_thread(watch.status, node)
                if "error" not in status and condition(status):
                    return status
                await asyncio.sleep(LOOK_SECONDS)

    async def wait_for_step(self, step: int, *identities: str) -> None:
        """Wait until each of these nodes has reached a step."""
        for identity in identities:
            await self.wait_for(identity, lambda status: status["step"] >= step)

    async def samples(self, identity: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """What Prometheus would scrape from a node: values by name and labels."""
        node = self.cluster.node(identity)
        assert node is not None
        return await asyncio.to_thread(samples_of, node)


def samples_of(node: Member) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The values of a node's /metrics by name and labels, once it answers."""
    found = {}
    for line in _metrics(node).splitlines():
        if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            found[match[1], labels] = float(match[3])
    return found


def _metrics(node: Member) -> str:
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://{node.http}/metrics", timeout=30) as answer:
                text: str = answer.read().decode()
                return text
        except (OSError, HTTPException):  # It has no time for that now, say.
            if time.monotonic() > ends:
                raise
            time.sleep(LOOK_SECONDS)


@asynccontextmanager
async def running(folder: Path, **plan: Any) -> AsyncIterator[Rig]:
    chosen = init.Plan(**{"task": "digits", **plan})
    file = init.create(folder, chosen, free_addresses(chosen))
    cluster = read_cluster(file)
    theta_0 = folder / "initial.safetensors"
    initial.write(initial.build(cluster, folder), theta_0)
    async with Daemons(file, cluster, folder / "logs") as daemons:
        yield Rig(file, cluster, daemons, theta_0)


@contextmanager
def attended(words: Sequence[str | Path], **more: Any) -> "Iterator[subprocess.Popen[str]]":
    """A program that is read while it runs; Ctrl-C ends it, and so does waiting for ever.

    Args:
        words: The program and its arguments.
        more: What else ``subprocess.Popen`` takes.
    """
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more,
        # Who runs the tests in the background may ignore Ctrl-C, and what is ignored is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        patience = threading.Timer(PATIENCE_SECONDS, process.kill)
        patience.start()
        try:
            yield process
            process.wait()
        finally:
            patience.cancel()
            process.kill()
