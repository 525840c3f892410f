"""How soon it is said that a node is missing: seconds until log, metric and status name it.

    .venv/bin/python benchmarks/waiting.py

Real daemons on loopback, 5 servers and 4 workers, f = 1 of each. The first to be missing leaves a
quorum, so that it is called silent; the second leaves none, so that it is waited for. And a frozen
server, whose queues fill with large models. The goal is five seconds.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from byzsgd.cluster import Cluster
from byzsgd_daemons import init, initial, watch
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import Daemons, free_addresses

LOOK_SECONDS = 0.05
D = 50_000
"""Coordinates of the model: queues fill within a second or two."""


async def seconds_until(condition: Callable[[], Awaitable[bool]]) -> float:
    """Wait for a condition: how long that took."""
    began = time.monotonic()
    while not await condition():
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def said(cluster: Cluster, folder: Path, node: str, words: str, remark: str) -> str:
    """Seconds until a node's log, and until ``byzsgd status`` says something."""
    log = folder / "logs" / f"{node}.log"

    async def logged() -> bool:
        return words in log.read_text()

    async def shown() -> bool:
        found = await watch.statuses(cluster)
        return any(line.startswith(remark) for line in watch.remarks(cluster, found))

    both = await asyncio.gather(seconds_until(logged), seconds_until(shown))
    return " | ".join(f"{seconds:.1f}" for seconds in both)


async def main() -> None:
    """Take nodes away, one after the other, and print how soon that was said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cluster"
        plan = init.Plan(task="quadratic", steps=0, servers=5, workers=4)
        file = init.create(folder, plan, free_addresses(plan))
        file.write_text(f"{file.read_text()}\n[task_options]\nd = {D}\n")
        cluster = read_cluster(file)
        theta_0 = folder / "initial.safetensors"
        initial.write(initial.build(cluster, folder), theta_0)
        async with Daemons(file, cluster, folder / "logs") as daemons:
            for server in cluster.servers:
                await daemons.start("server", server, "--initial", str(theta_0))
            for worker in cluster.workers:
                await daemons.start("worker", worker)

            async def trains() -> bool:
                found = await watch.statuses(cluster)
                return all(status.get("step", 0) >= 20 for status in found.values())

            await seconds_until(trains)
            print("| what | in the log, s | in status, s |\n| --- | --- | --- |")
            for node, number, teller, words, remark in (
                ("s4", signal.SIGSTOP, "w0", "cannot send to s4", "cannot be sent to: s4"),
                ("w3", signal.SIGKILL, "s0", "w3 is silent", "silent: w3"),
                ("w0", signal.SIGSTOP, "s0", ": w0 (last seen", "waited for: gradients of w0, w3"),
            ):
                daemons.process(node).send_signal(number)
                row = await said(cluster, folder, teller, words, remark)
                print(f"| {number.name} {node}: {words} | {row} |", flush=True)
            # What is frozen cannot be asked to end.
            for node in ("s4", "w0"):
                daemons.process(node).kill()


if __name__ == "__main__":
    asyncio.run(main())
