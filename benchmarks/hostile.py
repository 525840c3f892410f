"""What hostile input costs a cluster of daemons: its step rate, and the memory of its nodes.

    python -m benchmarks.hostile
    python -m benchmarks.hostile --attack storm --attack endless --parameters 250000 --rounds 5

From the root of the repository: it takes the attacks from ``tests/hostile``. One cluster of real
daemons on loopback, (n_w, f_w, n_ps, f_ps) = (4, 1, 5, 1), whose last worker and server are the
attacker's: 7 correct daemons, each of them needed for every step. For each attack, in turn and so
many rounds: some seconds in calm, some under attack. ``rate`` is steps a second under attack over
calm, ``cpu`` CPU time of the correct daemons a step, under attack over calm; medians of the rounds.
The attacker shares the machine: it is as nice as can be, has a limit to its rate, and its own CPU
time is given. Memory is the highest peak of any server and any worker, besides the formula's bound.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.hostile.attacks import ATTACKS
from tests.hostile.standing import Standing, standing

from byzsgd import memory

MIB = 1 << 20

SETTLE_SECONDS = 1.0
"""Between an attack and the next calm: what it left is taken away."""


@dataclass(frozen=True)
class Window:
    """Some seconds of training."""

    rate: float
    """Steps a second."""
    cpu: float
    """CPU seconds of all correct daemons a step."""


def watched(cluster: Standing, seconds: float) -> Window:
    """What happens in some seconds."""
    began, step, cpu = time.monotonic(), cluster.step("s0"), cluster.cpu_seconds()
    time.sleep(seconds)
    took, steps = time.monotonic() - began, max(cluster.step("s0") - step, 1)
    return Window(steps / took, (cluster.cpu_seconds() - cpu) / steps)


def row(cluster: Standing, name: str, seconds: float, rounds: int) -> str:
    """A line of the table."""
    calm, hostile, cpu, sent = [], [], 0.0, 0
    cluster.forget_peaks()
    for _ in range(rounds):
        calm.append(watched(cluster, seconds))
        attacker = cluster.attack(name, seconds + 0.5)
        assert attacker.stdout is not None
        attacker.stdout.readline()
        hostile.append(watched(cluster, seconds))
        said = json.loads(attacker.communicate()[0].splitlines()[-1])
        cpu, sent = cpu + said["cpu_seconds"], sent + said["sent"]
        time.sleep(SETTLE_SECONDS)
    assert not cluster.ended(), cluster.ended()
    rate = median(b.rate / a.rate for a, b in zip(calm, hostile, strict=True))
    work = median(b.cpu / a.cpu for a, b in zip(calm, hostile, strict=True))
    servers, workers = (
        max(cluster.memory_bytes(identity, "VmHWM") for identity in identities) // MIB
        for identities in (cluster.servers, cluster.workers)
    )
    steps = median(window.rate for window in calm)
    return (
        f"{name:<17} {steps:8.1f} {rate:6.2f} {work:6.2f} {sent:9} {cpu / rounds:9.2f} "
        f"{servers:7} {workers:7}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attack", action="append", choices=ATTACKS, help="default: all")
    parser.add_argument("--parameters", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each window")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    d = arguments.parameters
    with tempfile.TemporaryDirectory() as folder, standing(Path(folder) / "cluster", d) as cluster:
        server = memory.server_bytes(cluster.cluster, d) // MIB
        worker = memory.worker_bytes(cluster.cluster, d, memory.SERVER_BASE_BYTES) // MIB
        print(f"{d} parameters; at worst {server} MB a server, {worker} MB a worker without torch")
        print(
            f"{'attack':<17} {'steps/s':>8} {'rate':>6} {'cpu':>6} {'sent':>9} {'its CPU s':>9} "
            f"{'server':>7} {'worker':>7}"
        )
        for name in arguments.attack or ATTACKS:
            print(row(cluster, name, arguments.seconds, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
