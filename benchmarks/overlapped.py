"""What overlapped gathers save: steps a second with them over steps a second without.

    .venv/bin/python -m benchmarks.overlapped
    sudo .venv/bin/python -m benchmarks.overlapped --d 1000 1000000 --delay 0 100

First in virtual time, where nothing takes any but what is said: the same on every machine. Then,
for each ``--d``, two clusters of real daemons, 5 servers and 7 workers, f = 1 and 2, a gather in
every step, which differ in ``overlapped_gather`` alone. Every node has a network namespace of its
own (tests/network/namespaces.py), with one daemon of each cluster in it. They run in turn for so
many seconds, while all of the other cluster are frozen; the ratio is the median over the rounds.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import rows
from tests.network.hosted import Hosted
from tests.network.namespaces import Network, joined, lacking

from byzsgd.cluster import Role
from byzsgd.simulation import Faults, Simulation
from byzsgd.tasks import load_task
from byzsgd.tasks.quadratic import quadratic
from byzsgd_daemons import init, initial
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.evaluate import memory
from byzsgd_daemons.evaluate.plan import Run

TABLE = "Overlapped gathers: steps a second over those without"

VIRTUAL_STEPS = 200

WARM_STEPS = 3
"""After a thaw, before anything is measured."""


def virtual(period: int, delay: float, work: float) -> rows.Row:
    """A row of the table: the same cluster in memory, in virtual time.

    Args:
        period: T.
        delay: Seconds that each message takes.
        work: Seconds that each gradient, update and median takes.
    """
    faults = Faults(delay=(delay, delay), work=(work, work))
    seconds = []
    for overlapped in (False, True):
        plan = init.Plan(
            task="quadratic",
            steps=VIRTUAL_STEPS,
            gather_period=period,
            overlapped_gather=overlapped,
        )
        cluster = memory.cluster_of(Run(plan=plan, in_memory=True))
        simulation = Simulation(cluster, quadratic(1), seed=1, faults=faults, checked=False)
        simulation.run()
        seconds.append(simulation.timeline.now)
    plain = VIRTUAL_STEPS / seconds[0]
    words = f"virtual, T = {period}, {1000 * delay:g} ms a message, {1000 * work:g} ms of work"
    return rows.Row(TABLE, words, seconds[0] / seconds[1], "x", note=f"{plain:.2g} steps/s without")


def start(network: Network, folder: Path, d: int, *, overlapped: bool) -> Hosted:
    """Start a cluster, one daemon on each host."""
    plan = init.Plan(task="quadratic", steps=0, overlapped_gather=overlapped)
    port, http_port = 7000 + 1000 * overlapped, 9100 + overlapped
    addresses = init.Addresses(
        servers=[f"{server}:{port}" for server in init.identities(plan, Role.SERVER)],
        http={node: f"{network.window(node)}:{http_port}" for node in network.hosts},
    )
    file = init.create(folder, plan, addresses)
    file.write_text(f"{file.read_text()}\n[task_options]\nd = {d}\n")
    cluster = read_cluster(file)
    theta_0 = folder / "initial.safetensors"
    initial.write(initial.build(cluster, folder), theta_0)
    task = load_task(cluster.task, cluster.task_options, directory=folder)
    rig = Hosted(network, file, cluster, task, frozenset())
    for server in cluster.servers:
        rig.start(server, "server", "--id", server, "--initial", str(theta_0))
    for worker in cluster.workers:
        rig.start(worker, "worker", "--id", worker)
    return rig


def signalled(rig: Hosted, number: signal.Signals) -> None:
    """Send a signal to all daemons of a cluster."""
    for daemon in rig.daemons.values():
        daemon.send_signal(number)


async def rate(rig: Hosted, seconds: float) -> float:
    """Steps a second of a cluster that thaws, over some seconds, and freezes again."""
    signalled(rig, signal.SIGCONT)
    await rig.progress(rig.servers, WARM_STEPS)
    began, step = time.monotonic(), await rig.furthest()
    await asyncio.sleep(seconds)
    made, took = await rig.furthest() - step, time.monotonic() - began
    signalled(rig, signal.SIGSTOP)
    return made / took


async def measure(rigs: Sequence[Hosted], work: str, seconds: float, rounds: int) -> rows.Row:
    """A row of the table: the two clusters in turn, without and with overlap."""
    found = [[await rate(rig, seconds) for rig in rigs] for _ in range(rounds)]
    ratios = sorted(after / before for before, after in found)
    plain = median(before for before, _ in found)
    note = f"{plain:.2g} steps/s without; rounds from {ratios[0]:.2f} to {ratios[-1]:.2f}"
    return rows.Row(TABLE, work, median(ratios), "x", note=note)


async def run(arguments: argparse.Namespace) -> list[rows.Row]:
    """Every size under every network."""
    found = []
    hosts = [f"s{number}" for number in range(5)] + [f"w{number}" for number in range(7)]
    for d in arguments.d:
        with tempfile.TemporaryDirectory() as folder, joined(hosts) as network:
            rigs = []
            for overlapped in (False, True):
                name = str(Path(folder) / f"overlapped-{overlapped}")
                rigs.append(start(network, Path(name), d, overlapped=overlapped))
                await rigs[-1].progress(rigs[-1].servers, WARM_STEPS)
                signalled(rigs[-1], signal.SIGSTOP)
            for delay in arguments.delay:
                for megabits in arguments.megabits:
                    words = f"d = {d}, {delay} ms each way" if delay else f"d = {d}"
                    words += f", {megabits} Mbit/s" if megabits else ""
                    if delay:
                        network.delay(delay)
                    if megabits:
                        network.slow(megabits)
                    found.append(await measure(rigs, words, arguments.seconds, arguments.rounds))
                    print(rows.markdown(found[-1:]), flush=True)
                    network.heal()
            for rig in rigs:
                for daemon in rig.daemons.values():
                    daemon.kill()
                    daemon.communicate()
    return found


def main() -> None:
    """Measure, print, and write a file where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--d", type=int, nargs="+", default=[], help="parameters of real clusters")
    parser.add_argument("--delay", type=int, nargs="+", default=[0], help="ms each way")
    parser.add_argument("--megabits", type=int, nargs="+", default=[0], help="of each host")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    found = [
        virtual(period, delay, work)
        for period in (1, 5)
        for delay, work in ((0.01, 0.001), (0.01, 0.01), (0.001, 0.01))
    ]
    print(rows.markdown(found), flush=True)
    if arguments.d:
        if reason := lacking():
            sys.exit(f"no network namespaces: {reason}")
        found += asyncio.run(run(arguments))
    if arguments.json:
        rows.write(found, arguments.json)


if __name__ == "__main__":
    main()
