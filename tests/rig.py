"""The daemons of a cluster on loopback, for tests and benchmarks to start, watch and kill."""

import asyncio
import re
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
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

    async def status(self, identity: str) -> dict[str, Any]:
        """What a node says of itself; an ``error`` while it does not answer."""
        node = self.cluster.node(identity)
        assert node is not None
        return await asyncio.to_thread(watch.status, node)

    async def step(self, identity: str) -> int:
        """The step that a node is at, -1 while it does not answer."""
        return int((await self.status(identity)).get("step", -1))

    async def wait_for(self, identity: str, condition: Callable[[dict[str, Any]], object]) -> Any:
        """The first status of a node for which a condition holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                status = await self.status(identity)
                if "error" not in status and condition(status):
                    return status
                await asyncio.sleep(LOOK_SECONDS)

    async def wait_for_step(self, step: int, *identities: str) -> None:
        """Wait until each of these nodes has reached a step."""
        for identity in identities:
            await self.wait_for(identity, lambda status: status["step"] >= step)

    async def samples(self, identity: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """What Prometheus would scrape from a node: values by name and labels."""
        return samples_of((await self.get(identity, "/metrics"))[1])

    async def get(self, identity: str, path: str) -> tuple[int, str]:
        """Status code and text of a node's HTTP answer."""
        node = self.cluster.node(identity)
        assert node is not None
        return await asyncio.to_thread(answer, node, path)


def answer(node: Member, path: str) -> tuple[int, str]:
    """Status code and text of a node's HTTP answer."""
    with urllib.request.urlopen(f"http://{node.http}{path}", timeout=30) as found:
        return found.status, found.read().decode()


def samples_of(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The values of an answer to /metrics, by name and labels."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            found[match[1], labels] = float(match[3])
    return found


@asynccontextmanager
async def running(folder: Path, **plan: Any) -> AsyncIterator[Rig]:
    chosen = init.Plan(**{"task": "digits", **plan})
    file = init.create(folder, chosen, free_addresses(chosen))
    cluster = read_cluster(file)
    theta_0 = folder / "initial.safetensors"
    initial.write(initial.build(cluster, folder), theta_0)
    async with Daemons(file, cluster, folder / "logs") as daemons:
        yield Rig(file, cluster, daemons, theta_0)
