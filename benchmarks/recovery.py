"""How long nodes take to come back after SIGKILL, and what a power cut costs: a table.

    python benchmarks/recovery.py
    python benchmarks/recovery.py --task quadratic --rounds 5 --variant synchronous

A real cluster on this machine, (n_w, f_w, n_ps, f_ps) = (7, 2, 5, 1). In every round f_ps servers
and f_w workers get SIGKILL at once, at a moment that chance chooses; the others must go on, and the
killed ones are started again as processes of their own, imports and all. A node is back when it
has made a step of its own and is where the others were when it was started. Then everything gets
SIGKILL at once, and is started again. All the while somebody listens to the servers' models: within
one boot id no server's step may fall.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

from byzsgd.cluster import Cluster, Role, Variant
from byzsgd.messages import Message, Model, Pull, Reason
from byzsgd.transport import ZeroMQ, keys
from byzsgd.vectors import Vector
from byzsgd_daemons import init, watch
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import ONE_THREAD, free_addresses

PATIENCE_SECONDS = 120.0
"""Far above what anything here takes: only a wait that would be for ever runs into it."""

LOOK_SECONDS = 0.02
"""How often a condition is looked at that another process makes true."""

GO_ON_STEPS = 5
"""Steps that the others must make without those that were killed."""

PULL_SECONDS = 0.05
"""How often an operator asks every server for its model."""


@dataclass(frozen=True, eq=False)
class Heard:
    """A model that a server published, or answered with."""

    server: str
    boot: bytes
    step: int
    vector: Vector


class Observer:
    """Listens to the servers: with a worker's key to what they publish, with an operator's it asks.

    With a worker's key it says nothing, so that the worker itself is answered as before.
    """

    def __init__(self, cluster: Cluster, identity: str, secret: str, d: int) -> None:
        self._cluster = cluster
        self._asks = cluster.role(identity) is Role.OPERATOR
        self._transport = ZeroMQ(identity, cluster, secret, d, self)
        self._tasks: list[asyncio.Task[None]] = []
        self._reached: dict[tuple[str, bytes], int] = {}
        self.models: list[Heard] = []
        self.fell: list[str] = []
        """Each time that a server's step fell within one boot id, in words."""

    async def __aenter__(self) -> Self:
        await self._transport.open()
        self._tasks = [asyncio.create_task(self._transport.run())]
        if self._asks:
            self._tasks.append(asyncio.create_task(self._ask()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._transport.close()

    async def _ask(self) -> None:
        while True:
            self._transport.send(self._cluster.servers, Pull(0))
            await asyncio.sleep(PULL_SECONDS)

    @property
    def furthest(self) -> int:
        """The largest step of any model so far."""
        return max(self._reached.values(), default=0)

    @property
    def lives(self) -> int:
        """How many lives of servers were heard of."""
        return len(self._reached)

    def received(self, peer: str, message: Message) -> None:
        if not isinstance(message, Model):
            return
        life = peer, self._transport.statistics().boot[peer]
        before = self._reached.get(life, 0)
        if message.step < before:
            self.fell.append(f"{peer} said step {message.step} after {before} in one life")
        self._reached[life] = max(before, message.step)
        self.models.append(Heard(*life, message.step, message.vector))

    def refused(self, peer: str, reason: Reason, detail: str) -> None:
        """Nothing."""

    def connected(self, peer: str) -> None:
        """Nothing."""

    def disconnected(self, peer: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Cut:
    """What a power cut of the whole cluster cost."""

    seconds: float
    """From the restart until every server has made a step."""
    reached: int
    """The furthest step before."""
    resumed: int
    """The step at which the training went on."""


@dataclass
class Storm:
    """Kills nodes of a running cluster, starts them again, and waits until they are back."""

    cluster: Cluster
    kill: Callable[[str], Awaitable[object]]
    """Sends SIGKILL, and returns once the process has ended."""
    start: Callable[[str], Awaitable[object]]
    rng: random.Random
    patience: float = PATIENCE_SECONDS
    back: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Seconds until a node answered, and until it was back, by node."""

    async def wait_for(self, identity: str, condition: Callable[[dict[str, Any]], object]) -> Any:
        """The first status of a node for which a condition holds."""
        node = self.cluster.node(identity)
        assert node is not None
        try:
            async with asyncio.timeout(self.patience):
                while True:
                    status = await asyncio.to_thread(watch.status, node)
                    if "error" not in status and condition(status):
                        return status
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"{identity}: {status.get('sentence', status)}") from None

    async def wait_for_steps(self, count: int, servers: Sequence[str]) -> int:
        """Wait until these servers have made so many steps more; the step they have all reached."""
        now = [(await self.wait_for(server, lambda _: True))["step"] for server in servers]
        target = max(now) + count
        for server in servers:
            await self.wait_for(server, lambda status: status["step"] >= target)
        return target

    async def strike(self) -> None:
        """Kill f_ps servers and f_w workers at once, and see all of them come back."""
        cluster, rng = self.cluster, self.rng
        servers = rng.sample(cluster.servers, cluster.f_servers)
        victims = [*servers, *rng.sample(cluster.workers, cluster.f_workers)]
        others = [server for server in cluster.servers if server not in servers]
        await self.wait_for_steps(rng.randrange(20), others)
        await asyncio.gather(*map(self.kill, victims))
        target = await self.wait_for_steps(GO_ON_STEPS, others)
        began = time.monotonic()
        await asyncio.gather(*map(self.start, victims))
        await asyncio.gather(*(self._comes_back(victim, target, began) for victim in victims))

    async def _comes_back(self, victim: str, target: int, began: float) -> None:
        await self.wait_for(victim, lambda _: True)
        up = time.monotonic() - began
        await self.wait_for(
            victim, lambda status: status["steps_done"] > 0 and status["step"] >= target
        )
        self.back.setdefault(victim, []).append((up, time.monotonic() - began))

    async def power_cut(self, observer: Observer) -> Cut:
        """Kill everything at once, and see the training go on."""
        cluster = self.cluster
        await self.wait_for_steps(self.rng.randrange(20), cluster.servers)
        everybody = [*cluster.servers, *cluster.workers]
        await asyncio.gather(*map(self.kill, everybody))
        reached = observer.furthest
        began = time.monotonic()
        await asyncio.gather(*map(self.start, everybody))
        found = [await self.wait_for(s, lambda each: each["steps_done"]) for s in cluster.servers]
        seconds = time.monotonic() - began
        return Cut(seconds, reached, min(each["step"] - each["steps_done"] for each in found))


class Processes:
    """Every node as a process of its own, started as an operator would."""

    def __init__(self, file: Path, cluster: Cluster, period: int) -> None:
        self._file, self._cluster, self._period = file, cluster, period
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, identity: str) -> None:
        role = self._cluster.role(identity)
        assert role is not None
        words = [role.value, "--cluster", str(self._file), "--id", identity]
        words += ["--until-stdin-closes"]
        if role is Role.SERVER:
            state = self._file.parent / "state" / identity
            words += ["--state", str(state), "--checkpoint-period", str(self._period)]
        with (self._file.parent / f"{identity}.log").open("ab") as log:
            self._running[identity] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "byzsgd_daemons.cli", *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | ONE_THREAD,
            )

    async def kill(self, identity: str) -> None:
        process = self._running[identity]
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def close(self) -> None:
        await asyncio.gather(*map(self.kill, self._running))


async def measure(folder: Path, variant: Variant, arguments: argparse.Namespace) -> None:
    """Run one cluster through all rounds and one power cut, and print what it took."""
    plan = init.Plan(task=arguments.task, steps=0, servers=5, workers=7, variant=variant.value)
    file = init.create(folder, plan, free_addresses(plan))
    cluster = read_cluster(file)
    processes = Processes(file, cluster, arguments.checkpoint_period)
    rng = random.Random(arguments.seed)
    storm = Storm(cluster, processes.kill, processes.start, rng)
    try:
        await asyncio.gather(*map(processes.start, (*cluster.servers, *cluster.workers)))
        first = await storm.wait_for(cluster.servers[0], lambda status: status["steps_done"])
        assert first["checkpoint"] is not None
        listener = cluster.workers[-1] if variant is Variant.ASYNCHRONOUS else init.OPERATOR
        secret = keys.read_secret(folder / "keys" / f"{listener}.key")
        d = await asyncio.to_thread(_coordinates, folder)
        async with Observer(cluster, listener, secret, d) as observer:
            for _ in range(arguments.rounds):
                await storm.strike()
                observer.models.clear()
            cuts = []
            for _ in range(arguments.cuts):
                await storm.wait_for_steps(2 * arguments.checkpoint_period, cluster.servers)
                cuts.append(await storm.power_cut(observer))
                observer.models.clear()
            report(variant, storm, cuts, observer)
    finally:
        await processes.close()


def _coordinates(folder: Path) -> int:
    """d, from the first model that a server keeps."""
    from byzsgd_daemons import initial

    kept = next((folder / "state").glob("*/initial-*.safetensors"))
    return len(initial.read(kept).vector)


def report(variant: Variant, storm: Storm, cuts: Sequence[Cut], observer: Observer) -> None:
    """Print a table of one variant."""
    print(f"{variant.value}:")
    for role, nodes in (("servers", storm.cluster.servers), ("workers", storm.cluster.workers)):
        seconds = [each for node in nodes for each in storm.back.get(node, [])]
        for what, column in (("answer", 0), ("are back", 1)) if seconds else ():
            found = [each[column] for each in seconds]
            print(
                f"  {role} {what:<8} after  median {median(found):5.2f} s  "
                f"max {max(found):5.2f} s  ({len(found)} kills)"
            )
    for cut in cuts:
        print(
            f"  power cut at step {cut.reached}: resumed at {cut.resumed} "
            f"({cut.reached - cut.resumed} steps lost), all servers back after {cut.seconds:.2f} s"
        )
    print(f"  lives heard of: {observer.lives}; falls within one life: {len(observer.fell)}")
    for each in observer.fell:
        print(f"    {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to come back after SIGKILL.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--checkpoint-period", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variant", choices=[each.value for each in Variant], action="append")
    arguments = parser.parse_args()
    for name in arguments.variant or [each.value for each in Variant]:
        with tempfile.TemporaryDirectory(prefix="byzsgd-recovery-") as folder:
            asyncio.run(measure(Path(folder) / "cluster", Variant(name), arguments))


if __name__ == "__main__":
    main()
