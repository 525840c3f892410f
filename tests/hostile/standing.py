"""A cluster whose last worker and last server are the attacker's: daemons as separate processes.

Not forked from a nursery, whose pages would count as theirs: here memory is measured.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hostile.attacks import OPERATORS
from tests.rig import LOOK_SECONDS, PATIENCE_SECONDS, samples_of

from byzsgd.cluster import Cluster, Role
from byzsgd.transport import keys
from byzsgd_daemons import init, initial, watch
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import ONE_THREAD, free_addresses

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join(map(str, (ROOT, ROOT / "common", ROOT / "daemons")))

SHAPE: dict[str, Any] = {"servers": 5, "workers": 4, "task": "quadratic", "steps": 0}
"""The smallest cluster in which a worker and a server may be hostile."""


@dataclass
class Standing:
    """The daemons of the correct nodes, and what can be seen of them."""

    file: Path
    cluster: Cluster
    d: int
    processes: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    @property
    def servers(self) -> tuple[str, ...]:
        """The correct servers."""
        return self.cluster.servers[:-1]

    @property
    def workers(self) -> tuple[str, ...]:
        """The correct workers."""
        return self.cluster.workers[:-1]

    @property
    def correct(self) -> tuple[str, ...]:
        """All correct nodes."""
        return (*self.servers, *self.workers)

    def start(self) -> None:
        """Start every correct node, and wait until all of them have done a step."""
        theta_0 = self.file.parent / "initial.safetensors"
        initial.write(initial.build(self.cluster, self.file.parent), theta_0)
        for identity in self.correct:
            role = self.cluster.role(identity)
            assert role is not None
            more = ("--initial", str(theta_0)) if role is Role.SERVER else ()
            words = [role.value, "--id", identity, "--cluster", str(self.file), *more]
            with self.log(identity).open("wb") as log:
                self.processes[identity] = subprocess.Popen(
                    [sys.executable, "-m", "byzsgd_daemons.cli", *words],
                    env=os.environ | ONE_THREAD | {"PYTHONPATH": PYTHONPATH},
                    stdout=log,
                    stderr=log,
                )
        self.wait_for_steps(2)

    def stop(self) -> None:
        """End them all."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    def attack(self, name: str, seconds: float, count: int = 10**9) -> "subprocess.Popen[str]":
        """Begin an attack, which ends after some seconds or so many messages or connections.

        Its first line of output says that it begins, its last one what it has sent.
        """
        words = [name, "--parameters", str(self.d)]
        words += ["--seconds", str(seconds), "--count", str(count)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.attacks", str(self.file), *words],
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
            stdout=subprocess.PIPE,
            text=True,
        )

    def ended(self) -> list[str]:
        """The nodes whose process is no more."""
        return [who for who, process in self.processes.items() if process.poll() is not None]

    def step(self, identity: str) -> int:
        """The step of a node, -1 while it does not answer."""
        node = self.cluster.node(identity)
        assert node is not None
        return int(watch.status(node).get("step", -1))

    def wait_for_steps(self, count: int) -> None:
        """Wait until every correct node has gone on by so many steps."""
        began = {identity: self._wait_for_step(identity, 0) for identity in self.correct}
        for identity, step in began.items():
            self._wait_for_step(identity, step + count)

    def _wait_for_step(self, identity: str, least: int) -> int:
        """The step of a node, once it answers and has come so far."""
        end = time.monotonic() + PATIENCE_SECONDS
        while (step := self.step(identity)) < least:
            assert time.monotonic() < end, f"{identity} stands still"
            assert not self.ended(), self.ended()
            time.sleep(LOOK_SECONDS)
        return step

    def refused(self) -> Counter[tuple[str, str]]:
        """Messages and connections refused by all correct nodes together, by peer and reason."""
        found: Counter[tuple[str, str]] = Counter()
        for identity in self.correct:
            for (name, labels), value in self.samples(identity).items():
                if name == "byzsgd_node_refused_total":
                    said = dict(labels)
                    found[said["peer"], said["reason"]] += int(value)
        return found

    def samples(self, identity: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """What Prometheus would scrape from a node."""
        node = self.cluster.node(identity)
        assert node is not None
        return samples_of(node)

    def log(self, identity: str) -> Path:
        """The log of a node."""
        return self.file.parent / f"{identity}.log"

    def log_lines(self, identity: str) -> list[dict[str, Any]]:
        """What a node has logged."""
        return [json.loads(line) for line in self.log(identity).read_text().splitlines()]

    def memory_bytes(self, identity: str, what: str = "VmRSS") -> int:
        """Resident memory of a node, or its peak since ``forget_peaks``: ``VmHWM``."""
        status = Path(f"/proc/{self.processes[identity].pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith(f"{what}:")]
        return int(line.split()[1]) * 1024

    def cpu_seconds(self) -> float:
        """What all correct nodes have taken so far."""
        ticks = 0
        for process in self.processes.values():
            words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def forget_peaks(self) -> None:
        """Let peaks of memory count from now on."""
        for process in self.processes.values():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")


@contextmanager
def standing(folder: Path, d: int, **plan: Any) -> Iterator[Standing]:
    """The correct nodes of a new cluster, running; they end with the context."""
    chosen = init.Plan(**SHAPE | plan)
    file = init.create(folder, chosen, free_addresses(chosen))
    text = file.read_text()
    text = text.replace("\ntask = ", f"\ntask_options = {{ d = {d} }}\ntask = ", 1)
    for operator in OPERATORS:
        pair = keys.generate()
        keys.write_secret(folder / "keys" / f"{operator}.key", pair.secret)
        member = {"id": operator, "role": "operator", "public_key": pair.public}
        text += "\n[[nodes]]\n" + "".join(f'{key} = "{value}"\n' for key, value in member.items())
    file.write_text(text)
    made = Standing(file, read_cluster(file), d)
    try:
        made.start()
        yield made
    finally:
        made.stop()
