"""A cluster whose nodes have a host each, to be watched while the network fails."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.network.namespaces import Network, joined
from tests.rig import LOOK_SECONDS, PATIENCE_SECONDS

from byzsgd.cluster import Cluster, Role
from byzsgd.tasks import Task, load_task
from byzsgd.vectors import distance, norm
from byzsgd_daemons import init, initial, watch
from byzsgd_daemons.config import Settings, read_cluster
from byzsgd_daemons.fetch import operator_of
from byzsgd_daemons.nursery import ONE_THREAD
from byzsgd_daemons.operator import Operator

PORT, HTTP_PORT = 7000, 9100


@dataclass(frozen=True)
class Result:
    """What an operator leaves with."""

    step: int
    accuracy: float
    """Of the median of a quorum of servers' models."""
    accuracy_worst: float
    """Of the worst of these models."""
    drift: float
    """Largest distance between two of them, over the norm of one."""


@dataclass
class Hosted:
    """The daemons of a cluster, on hosts of their own."""

    network: Network
    file: Path
    cluster: Cluster
    task: Task
    lying: frozenset[str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    """The last step that each node was seen at."""

    @property
    def nodes(self) -> list[str]:
        """The correct nodes."""
        return [node for node in self.network.hosts if node not in self.lying]

    @property
    def servers(self) -> list[str]:
        """The correct servers."""
        return [node for node in self.cluster.servers if node not in self.lying]

    def log(self, node: str) -> str:
        """What a node has logged."""
        return (self.file.parent / f"{node}.log").read_text()

    async def status(self, node: str) -> dict[str, Any]:
        """What a node says of itself; its step must never fall."""
        member = self.cluster.node(node)
        assert member is not None
        status: dict[str, Any] = await asyncio.wrap_future(self.network.look(watch.status, member))
        step = status.get("step", -1)
        assert step == -1 or step >= self.reached.get(node, -1), f"{node} went back to step {step}"
        self.reached[node] = max(step, self.reached.get(node, -1))
        return status

    async def says(self, node: str) -> dict[str, Any]:
        """What a node says of itself, once it answers: on a busy machine not at every look."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "error" in (status := await self.status(node)):
                await asyncio.sleep(LOOK_SECONDS)
        return status

    async def wait_for(
        self, nodes: Collection[str], condition: Callable[[dict[str, Any]], object]
    ) -> None:
        """Wait until a condition held for the status of each of these nodes."""
        lacking = list(nodes)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while lacking:
                    found = await asyncio.gather(*map(self.status, lacking))
                    lacking = [
                        node
                        for node, status in zip(lacking, found, strict=True)
                        if "error" in status or not condition(status)
                    ]
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            said = {node: watch.sentence(await self.status(node)) for node in lacking}
            raise AssertionError(f"in vain for {PATIENCE_SECONDS:g} s: {said}") from None

    async def furthest(self) -> int:
        """The highest step of a correct server."""
        return max([(await self.says(server))["step"] for server in self.servers])

    async def progress(self, nodes: Collection[str], steps: int = 20) -> float:
        """Wait until these nodes are so many steps further than anybody is now: seconds of it."""
        began, target = time.monotonic(), await self.furthest() + steps
        await self.wait_for(nodes, lambda status: status["step"] >= target)
        return time.monotonic() - began

    async def stands_still(self, nodes: Collection[str], missing: Collection[str]) -> None:
        """Wait until these nodes wait for others, and say for whom."""

        def stands(status: dict[str, Any]) -> bool:
            return watch.waits_long(status) and set(missing) <= set(status["waiting"]["lacking"])

        await self.wait_for(nodes, stands)

    async def fetch(self) -> Result:
        """What an operator at the hub leaves with now."""
        step = await self.furthest()
        return await asyncio.wrap_future(self.network.look(self._fetch, step))

    def _fetch(self, step: int) -> Result:
        settings = Settings(id=init.OPERATOR, cluster=self.file)
        identity, secret = operator_of(self.cluster, settings)
        # Whoever dials may have addresses of its own: the hub's view of the servers.
        nodes = tuple(
            replace(node, address=f"{self.network.window(node.id)}:{PORT}")
            if node.role is Role.SERVER
            else node
            for node in self.cluster.nodes
        )
        cluster = replace(self.cluster, nodes=nodes)

        async def ask() -> Result:
            d = len(self.task.initial(cluster.seed))
            async with Operator(cluster, identity, secret, d) as operator:
                answers = await operator.models(
                    step, seconds=PATIENCE_SECONDS, besides=self.servers
                )
            models = [model for node, model in answers.models.items() if node in self.servers]
            median = answers.median()
            return Result(
                answers.step,
                self.task.accuracy(median),
                min(map(self.task.accuracy, models)),
                max(distance(one, other) for one, other in combinations(models, 2)) / norm(median),
            )

        return asyncio.run(ask())

    def start(self, host: str, command: str, *words: str) -> None:
        """Start a daemon on a host; it ends with this process."""
        words = ("-m", "byzsgd_daemons.cli", command, "--cluster", str(self.file), *words)
        with (self.file.parent / f"{host}.log").open("ab") as log:
            self.daemons[host] = subprocess.Popen(
                self.network.command(
                    host, "env", *(f"{name}={value}" for name, value in ONE_THREAD.items()),
                    sys.executable, *words, "--until-stdin-closes",
                ),
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip


@asynccontextmanager
async def hosted(
    folder: Path, *, attack: str | None = None, d: int = 10_000, **plan: Any
) -> AsyncIterator[Hosted]:
    """A cluster that trains without end, each node on a host of its own.

    Args:
        folder: For its files.
        attack: What the last server and the last worker do in the place of their duty; None: all
            are correct.
        d: Coordinates of the model.
        plan: Of the cluster file, where it is not 5 servers and 4 workers.
    """
    chosen = init.Plan(**{"servers": 5, "workers": 4, "task": "quadratic", "steps": 0, **plan})
    servers = init.identities(chosen, Role.SERVER)
    workers = init.identities(chosen, Role.WORKER)
    lying = frozenset({servers[-1], workers[-1]}) if attack else frozenset[str]()
    with joined([*servers, *workers]) as network:
        addresses = init.Addresses(
            servers=[f"{server}:{PORT}" for server in servers],
            http={node: f"{network.window(node)}:{HTTP_PORT}" for node in network.hosts},
        )
        file = init.create(folder, chosen, addresses)
        text = file.read_text()
        file.write_text(f"{text}\n[task_options]\nd = {d}\n")
        cluster = read_cluster(file)
        theta_0 = folder / "initial.safetensors"
        initial.write(initial.build(cluster, folder), theta_0)
        task = load_task(cluster.task, cluster.task_options, directory=folder)
        rig = Hosted(network, file, cluster, task, lying)
        try:
            for node in rig.nodes:
                if node in servers:
                    rig.start(node, "server", "--id", node, "--initial", str(theta_0))
                else:
                    rig.start(node, "worker", "--id", node)
            if attack:
                rig.start(
                    servers[-1], "adversary", "--as", servers[-1], "--as", workers[-1],
                    "--attack", attack, "--server-attack", attack, "--initial", str(theta_0),
                )  # fmt: skip
            yield rig
        finally:
            await asyncio.to_thread(_end, list(rig.daemons.values()))


def _end(daemons: list[subprocess.Popen[bytes]]) -> None:
    for daemon in daemons:
        daemon.terminate()
    for daemon in daemons:
        try:
            daemon.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.communicate()
