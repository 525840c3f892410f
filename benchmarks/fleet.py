"""A cluster of real daemons to be measured: on this machine, or each node on a host of its own.

Every daemon is a process of its own start, not forked from a nursery: what it holds is its own.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client.parser import text_string_to_metric_families
from tests.network.namespaces import Network, joined

from byzsgd.cluster import Cluster, Role
from byzsgd_daemons import init, initial, watch
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import free_addresses
from byzsgd_daemons.nursery import ONE_THREAD

ROOT = Path(__file__).parents[1]

PORT, HTTP_PORT = 7000, 9100
"""Of nodes that have a host each."""

PATIENCE_SECONDS = 180.0
"""Far above what any step or start here takes."""

STOP_SECONDS = 5.0

Counters: TypeAlias = dict[tuple[str, ...], float]
"""By name and the sorted values of their labels."""

VANILLA: dict[str, Any] = {"servers": 1, "f_servers": 0, "f_workers": 0, "rule": "average"}
"""The plain parameter server, in the same code: one server that averages and nobody may lie."""


@dataclass(frozen=True)
class Links:
    """Each node on a host of its own, behind a link of a rate that holds each way."""

    server: int
    """Mbit/s of each server."""
    worker: int
    """Mbit/s of each worker."""

    def of(self, host: str) -> int:
        """Mbit/s of a host."""
        return self.server if host.startswith("s") else self.worker


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a stretch of steps took."""

    steps: int
    seconds: float
    cpu: float
    """CPU seconds of all daemons together."""
    sent: dict[str, int]
    """Bytes that each node has sent through its link; empty without links."""
    received: dict[str, int]
    """The same that it has received."""

    @property
    def step(self) -> float:
        """Seconds a step."""
        return self.seconds / self.steps

    @property
    def cpu_step(self) -> float:
        """CPU seconds a step."""
        return self.cpu / self.steps


@dataclass
class Fleet:
    """The daemons of one cluster, which train without end."""

    cluster: Cluster
    network: Network | None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if self.network is None:
            return call(*arguments)
        return self.network.look(call, *arguments).result()

    def step(self) -> int:
        """The step that the first server is at, -1 before it answers."""
        for node, process in self.processes.items():
            assert process.poll() is None, f"{node} has ended"
        member = self.cluster.node(self.cluster.servers[0])
        assert member is not None
        return int(self._ask(watch.status, member).get("step", -1))

    def wait_for(self, step: int, poll: float = 0.1) -> None:
        """Wait until the first server has reached a step, as long as it takes some."""
        at = self.step()
        while at < step:
            at = self._turn(at, 1, poll)

    def pace(self, seconds: float, period: int = 1, poll: float = 0.02) -> Pace:
        """What steps take, over so many seconds or a little more.

        Args:
            seconds: Least length of the stretch.
            period: It begins and ends as the first server begins a step, and its length in steps
                is a multiple of this.
            poll: Seconds between two looks at the server, as it begins and ends.
        """
        first, began = self._turn(0, 1, poll), time.monotonic()
        before = self._counts()
        time.sleep(seconds)
        last, ended = self._turn(first, period, poll), time.monotonic()
        after = self._counts()
        return Pace(
            steps=last - first,
            seconds=ended - began,
            cpu=after[0] - before[0],
            sent=_less(after[1], before[1]),
            received=_less(after[2], before[2]),
        )

    def _turn(self, first: int, period: int, poll: float) -> int:
        """Wait until a period is over, counted from a first step; the step that begins the next."""
        at = step = self.step()
        moved = time.monotonic()
        while (step - first) // period == (at - first) // period:
            if time.monotonic() > moved + PATIENCE_SECONDS:
                raise SystemExit(f"no step after {step} within {PATIENCE_SECONDS:g} s")
            time.sleep(poll)
            if (now := self.step()) > step:
                step, moved = now, time.monotonic()
        return step

    def _counts(self) -> tuple[float, dict[str, int], dict[str, int]]:
        sent, received = {}, {}
        if self.network is not None:
            for node, process in self.processes.items():
                lines = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()
                words = next(line for line in lines if "eth0:" in line).partition(":")[2].split()
                received[node], sent[node] = int(words[0]), int(words[8])
        return sum(map(self.cpu_of, self.processes)), sent, received

    def cpu_of(self, node: str) -> float:
        """CPU seconds that a daemon has used."""
        text = Path(f"/proc/{self.processes[node].pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, node: str) -> tuple[int, int]:
        """Bytes that a daemon holds resident now, and has held at most."""
        lines = Path(f"/proc/{self.processes[node].pid}/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        now, most = (int(found[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return now, most

    def counters(self) -> Counters:
        """Every counter of all nodes' /metrics, summed, by name and labels."""
        total: Counters = defaultdict(float)
        addresses = [node.http for node in self.cluster.nodes if node.role is not Role.OPERATOR]
        with ThreadPoolExecutor() as pool:
            for text in pool.map(lambda address: self._ask(_metrics, address), addresses):
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        total[sample.name, *sorted(sample.labels.values())] += sample.value
        return total


def _less(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {node: count - before[node] for node, count in after.items()}


def _metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


@contextmanager
def fleet(
    *,
    links: Links | None = None,
    module: str = "byzsgd_daemons.cli",
    pull_after: float = 1.0,
    options: dict[str, Any] | None = None,
    **plan: Any,
) -> Iterator[Fleet]:
    """A cluster that trains without end.

    Args:
        links: Of hosts of their own; None: all nodes share this machine and its loopback.
        module: What runs the daemons, with the words of ``byzsgd``.
        pull_after: Seconds without a quorum after which a node asks: more than a step takes, and
            not much more, as what is said while nodes still start is lost.
        options: Of the task.
        plan: Of the cluster file.
    """
    chosen = init.Plan(**{"task": "quadratic", "steps": 0, **plan})
    nodes = [*init.identities(chosen, Role.SERVER), *init.identities(chosen, Role.WORKER)]
    folder = Path(tempfile.mkdtemp(prefix="byzsgd-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        network = None
        addresses = free_addresses(chosen)
        if links is not None:
            network = stack.enter_context(joined(nodes))
            for node in nodes:
                network.slow(links.of(node), node)
            addresses = init.Addresses(
                servers=[f"{node}:{PORT}" for node in nodes[: chosen.servers]],
                http={node: f"{network.window(node)}:{HTTP_PORT}" for node in nodes},
            )
        file = init.create(folder / "cluster", chosen, addresses)
        lines = [f"{name} = {value}" for name, value in (options or {}).items()]
        file.write_text("\n".join((file.read_text(), "[task_options]", *lines, "")))
        cluster = read_cluster(file)
        theta_0 = folder / "initial.safetensors"
        initial.write(initial.build(cluster, file.parent), theta_0)
        running = Fleet(cluster, network)
        stack.callback(_end, running.processes)
        for node in nodes:
            role = cluster.role(node)
            assert role is not None
            more = ("--initial", str(theta_0)) if role is Role.SERVER else ()
            words = [
                *("env", *(f"{name}={value}" for name, value in ONE_THREAD.items())),
                *(sys.executable, "-m", module, role.value, "--cluster", str(file), "--id", node),
                *("--pull-after", str(pull_after), *more, "--until-stdin-closes"),
            ]
            with (folder / f"{node}.log").open("wb") as log:
                running.processes[node] = subprocess.Popen(
                    words if network is None else network.command(node, *words),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=ROOT,
                )
        try:
            yield running
        except BaseException:
            for written in sorted(folder.glob("*.log")):
                sys.stderr.write(f"{written.stem}: {written.read_text()[-600:]}\n")
            raise


def _end(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
    for process in processes.values():
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
