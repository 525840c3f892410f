"""A machine on which byzsgd is installed and a cluster trains under attack: one for all tests."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.systemd.booted import CHECKOUT, Booted, booted, lacking, wait_until

from byzsgd.cluster import Cluster
from byzsgd_daemons import init, watch
from byzsgd_daemons.config import read_cluster

PLAN = init.Plan(servers=5, workers=4, task="task.py:breakable", steps=0)

LIARS = ("s4", "w3")

UNITS = Path("usr/local/lib/systemd/system")

DRILL = f"""\
[Service]
ExecStart=/opt/byzsgd/bin/byzsgd adversary --cluster /etc/byzsgd/cluster.toml \
{" ".join(f"--as {liar}" for liar in LIARS)} --attack sign-flip --server-attack equivocate
"""

IMPATIENT = "[Service]\nWatchdogSec=10s\nTimeoutAbortSec=1s\n"

SMALL = "[Service]\nMemoryMax=256M\n"

CLONE_NEWNET = 0x40000000


@dataclass
class Nodes:
    """The units of a cluster on a booted machine."""

    machine: Booted
    cluster: Cluster
    window: ThreadPoolExecutor
    """A thread whose sockets are the machine's."""

    @property
    def correct(self) -> list[str]:
        """The nodes that do not lie."""
        every = (*self.cluster.servers, *self.cluster.workers)
        return [node for node in every if node not in LIARS]

    def unit(self, node: str) -> str:
        """The unit of a node."""
        return f"byzsgd-{'server' if node in self.cluster.servers else 'worker'}@{node}.service"

    def show(self, node: str) -> dict[str, str]:
        """All properties of a node's unit."""
        return self.machine.show(self.unit(node))

    def restarts(self, node: str) -> int:
        """How often systemd has restarted a node."""
        return int(self.show(node)["NRestarts"])

    def pid(self, node: str) -> str:
        """A node's process, as the machine counts."""
        return self.show(node)["MainPID"]

    def file(self, name: str) -> Path:
        """A file of the machine."""
        return self.machine.root / name.lstrip("/")

    def status(self, node: str) -> dict[str, Any]:
        """What a node says of itself; an ``error`` while it does not answer."""
        member = self.cluster.node(node)
        assert member is not None
        status: dict[str, Any] = self.window.submit(watch.status, member).result()
        return status

    def wait_for(self, node: str, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first status of a node for which a condition holds."""

        def holds() -> dict[str, Any] | None:
            status = self.status(node)
            return status if "error" not in status and condition(status) else None

        def why() -> str:
            return f"{self.status(node)}\n{self.machine.journal(self.unit(node))[-3000:]}"

        found: dict[str, Any] = wait_until(holds, why)
        return found

    def says(self, node: str) -> dict[str, Any]:
        """What a node says of itself, once it answers: on a busy machine not at every look."""
        return self.wait_for(node, lambda _: True)

    def furthest(self) -> int:
        """The highest step of a correct node."""
        return max(int(self.says(node)["step"]) for node in self.correct)

    def progress(self, *nodes: str, steps: int = 20) -> None:
        """Wait until nodes, or all correct ones, are so many steps further than anybody is now."""
        target = self.furthest() + steps
        for node in nodes or self.correct:
            self.wait_for(node, lambda status: status["step"] >= target)

    def wait_for_journal(self, unit: str, pattern: str) -> None:
        """Wait until a unit, or systemd about it, has said something."""
        journal = self.machine.journal
        wait_until(lambda: re.search(pattern, journal(unit)), lambda: journal(unit)[-3000:])

    def wait_for_restarts(self, node: str, count: int) -> None:
        """Wait until systemd has restarted a node so often, and it is ready again."""

        def restarted() -> bool:
            found = self.show(node)
            return int(found["NRestarts"]) >= count and found["ActiveState"] == "active"

        wait_until(restarted, lambda: self.machine.journal(self.unit(node))[-3000:])


def install(layer: Path) -> None:
    """What a machine of a cluster has, after docs/operations.md, in a folder."""
    # Nothing here learns with torch: the installation is quick without.
    words = ["make", "install-systemd", f"DESTDIR={layer}", "TORCH=no", "EXTRAS="]
    subprocess.run(words, cwd=CHECKOUT, check=True, capture_output=True)
    folder = layer / "etc" / "byzsgd"
    init.create(folder, PLAN, init.Addresses.consecutive(PLAN, "127.0.0.1", 7000, 9100))
    shutil.copy(Path(__file__).with_name("task.py"), folder)
    drop_ins = {"server@s1": IMPATIENT, "worker@w1": IMPATIENT, "worker@w2": SMALL}
    for name, text in drop_ins.items():
        path = layer / UNITS / f"byzsgd-{name}.service.d" / "test.conf"
        path.parent.mkdir()
        path.write_text(text)
    (layer / UNITS / "drill.service").write_text(DRILL)


def enter_network(pid: int) -> None:
    """Give this thread the sockets of another process."""
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "no thread can enter the machine's network")


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A booted machine whose units train under attack."""
    if reason := lacking():
        pytest.skip(f"NOT TESTED: {reason}")
    folder = tmp_path_factory.mktemp("machine")
    layer = folder / "layer"
    install(layer)
    cluster = read_cluster(layer / "etc" / "byzsgd" / "cluster.toml")
    with (
        booted(layer, folder / "console") as machine,
        ThreadPoolExecutor(1, "window", enter_network, (machine.leader,)) as window,
    ):
        found = Nodes(machine, cluster, window)
        machine.run("systemctl", "enable", *map(found.unit, found.correct))
        machine.run("systemctl", "start", "drill.service", "byzsgd.target")
        yield found
