"""What a cluster of real daemons takes on one machine: a step, its start, a large server's memory.

    .venv/bin/python -m benchmarks.cluster --json run/bench/cluster.json
    .venv/bin/python -m benchmarks.cluster --only step --rounds 9

``step`` is the time of a step with d = 10, so with next to no data: 5 servers, 7 workers; beside
it stands what raw pyzmq takes for the same messages (``benchmarks.step_zmq``).
``start`` runs ``byzsgd local`` and looks at the first server until it has made a step. ``memory``
compares what servers with d = 25 M hold with ``byzsgd.memory.server_usual_bytes``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from subprocess import PIPE
from typing import Any

from benchmarks.fleet import PATIENCE_SECONDS, fleet
from benchmarks.rows import Row, markdown, write
from benchmarks.step_zmq import D

from byzsgd import memory
from byzsgd.cluster import Role
from byzsgd_daemons import init, watch
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import free_addresses

TABLE = "A cluster of 5 servers and 7 workers on one machine"
MEMORY = "Resident memory of a server"

BLOCK_SECONDS = 2.0
"""Of steps that are timed together."""

WARM_STEPS = 50

MEMORY_SHAPE: dict[str, Any] = {"servers": 2, "workers": 3, "f_servers": 0, "f_workers": 0}
"""Small, as every worker with d = 25 M holds a gigabyte as well."""

MEMORY_STEPS = 6
"""A server's memory is at its peak after a few."""


STEP_SHAPE = {"servers": 5, "workers": 7}


def step(rounds: int) -> list[Row]:
    """What a step without data takes: time, CPU time, messages; and what ZeroMQ takes for these."""
    with fleet(**STEP_SHAPE, options={"d": D}) as running:
        running.wait_for(WARM_STEPS)
        before, first = running.counters(), running.step()
        blocks = [running.pace(BLOCK_SECONDS) for _ in range(rounds)]
        after, last = running.counters(), running.step()
    floor, floor_cpu = _raw_step(rounds)
    received = sum(
        after[key] - before[key]
        for key in after
        if key[0] == "byzsgd_node_messages_total" and "received" in key
    )
    return [
        Row(
            TABLE,
            f"a step with d = {D}",
            1e3 * median(block.step for block in blocks),
            "ms",
            "<= 10",
            f"median of {rounds} stretches of {BLOCK_SECONDS:g} s; raw pyzmq {1e3 * floor:.1f} ms",
        ),
        Row(
            TABLE,
            "CPU time of such a step",
            1e3 * median(block.cpu_step for block in blocks),
            "ms",
            note=f"all 12 daemons, {received / (last - first):.0f} messages received; raw pyzmq "
            f"{1e3 * floor_cpu:.1f} ms",
        ),
    ]


def _raw_step(rounds: int) -> tuple[float, float]:
    """Seconds and CPU seconds of a step of ``benchmarks.step_zmq``."""
    plan = init.Plan(**STEP_SHAPE, steps=0)
    nodes = [*init.identities(plan, Role.SERVER), *init.identities(plan, Role.WORKER)]
    with tempfile.TemporaryDirectory(prefix="byzsgd-") as folder, ExitStack() as stack:
        file = init.create(Path(folder) / "cluster", plan, free_addresses(plan))
        words = [sys.executable, "-m", "benchmarks.step_zmq", str(file)]
        processes = [
            stack.enter_context(
                subprocess.Popen([*words, node], stdin=PIPE, stdout=PIPE, text=True, bufsize=1)
            )
            for node in nodes
        ]

        def ask() -> tuple[float, int, float]:
            answers = []
            for process in processes:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                answers.append(json.loads(process.stdout.readline()))
            return time.monotonic(), answers[0][0], sum(cpu for _, cpu in answers)

        try:
            while ask()[1] < WARM_STEPS:
                time.sleep(0.05)
            turns = [ask()]
            for _ in range(rounds):
                time.sleep(BLOCK_SECONDS)
                turns.append(ask())
        finally:
            for process in processes:
                process.kill()
    blocks = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairwise(turns)]
    return (
        median(seconds / steps for seconds, steps, _ in blocks),
        median(cpu / steps for _, steps, cpu in blocks),
    )


def start(rounds: int) -> list[Row]:
    """What passes from the command to the first step."""
    seconds = median(_first_step() for _ in range(rounds))
    return [Row(TABLE, "from byzsgd local to its first step", seconds, "s", "<= 10", "task mnist")]


def _first_step() -> float:
    with tempfile.TemporaryDirectory(prefix="byzsgd-") as folder:
        plan = init.Plan(steps=0)
        file = init.create(Path(folder) / "cluster", plan, free_addresses(plan))
        server = next(iter(read_cluster(file).nodes))
        began = time.monotonic()
        command = [sys.executable, "-m", "byzsgd_daemons.cli", "local", "--cluster", str(file)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                while watch.status(server).get("step", 0) < 1:
                    if process.poll() is not None or time.monotonic() > began + PATIENCE_SECONDS:
                        raise SystemExit("byzsgd local has made no step")
                    time.sleep(0.05)
                return time.monotonic() - began
            finally:
                process.terminate()


MEMORY_D = 25_000_000


def resident(rounds: int) -> list[Row]:
    """What servers hold at d = 25 M beside what the formula says."""
    del rounds  # Once is enough: there is no noise but that of the order of arrivals.
    d = MEMORY_D
    with fleet(**MEMORY_SHAPE, options={"d": d}, pull_after=20.0) as running:
        running.wait_for(MEMORY_STEPS)
        held, peaks = zip(*map(running.memory, running.cluster.servers), strict=True)
        said = memory.server_usual_bytes(running.cluster, d)
    shape = f"{MEMORY_SHAPE['servers']} servers, {MEMORY_SHAPE['workers']} workers"
    name = f"d = {d / 1e6:g} M, {shape}"
    note = (
        f"the most that one held: {max(peaks) / 1e9:.2f} GB, by formula {said / 1e9:.2f}; now "
        f"{' and '.join(f'{each / 1e9:.2f}' for each in held)}, less where gradients came apart"
    )
    away = 100 * abs(max(peaks) / said - 1)
    return [Row(MEMORY, name, away, "% off the formula", "<= 10", note)]


PARTS: dict[str, Callable[[int], list[Row]]] = {
    "step": step,
    "start": start,
    "memory": resident,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    rows = []
    for name in [arguments.only] if arguments.only else PARTS:
        rows += PARTS[name](arguments.rounds)
    sys.stdout.write(markdown(rows) + f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    if arguments.json:
        write(rows, arguments.json)


if __name__ == "__main__":
    main()
