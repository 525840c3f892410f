"""A machine of its own with a real systemd: process 1 of namespaces over this machine's files.

It needs root. Nothing of this machine is changed but its control groups, where the booted one has a
group of its own that goes with it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.rig import PATIENCE_SECONDS

SYSTEMD = Path("/lib/systemd/systemd")
PYTHON = Path("/usr/bin/python3")
NEEDED = ("unshare", "nsenter", "pivot_root", "systemctl", "ip", "make")

LOOK_SECONDS = 0.2
"""How often a condition is looked at that another process makes true: some looks are commands."""

PREFIX = "byzsgd-booted"
"""Of the names of control groups: after it comes the process that made it."""

CONTROL_GROUPS = Path("/sys/fs/cgroup")

BOOT = Path(__file__).with_name("boot.sh")
CHECKOUT = Path(__file__).parents[2]

SOURCE = Path("/opt/src")
"""Where the booted machine sees the checkout."""

PATH = "/opt/byzsgd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The script and its words, then the groups: joined first, as the new namespace shows no others.
JOIN = 'for group in "${@:4}"; do echo $$ >"$group/cgroup.procs"; done; exec unshare --fork --pid \
--kill-child --mount --uts --ipc --net --cgroup --propagation private bash "${@:1:3}"'

POWER_OFF = signal.SIGRTMIN + 4
"""What process 1 takes for an orderly shutdown."""


def lacking() -> str:
    """What keeps this machine from booting another, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root may boot a systemd"
    if not SYSTEMD.exists() or not PYTHON.exists():
        return f"no {SYSTEMD} or no {PYTHON}: apt-get install systemd python3"
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        return f"{', '.join(missing)} missing: apt-get install util-linux systemd iproute2 make"
    kinds = ("--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--fork")
    if subprocess.run(["unshare", *kinds, "true"], check=False).returncode != 0:
        return "this machine allows no namespaces"
    return ""


class Booted:
    """A machine; ``booted`` makes it."""

    def __init__(self, layer: Path, console: Path) -> None:
        """Prepare.

        Args:
            layer: A folder whose files are laid over this machine's.
            console: A file for what is said before there is a journal.
        """
        self._layer = layer
        self._console = console
        self._groups = groups_of(os.getpid())

    def boot(self) -> None:
        """Start the machine, and wait until it is up."""
        for group in self._groups:
            group.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):  # Version 1 begins with none.
                if (group / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
        words = [BOOT, self._layer, CHECKOUT, *self._groups]
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                ["bash", "-c", JOIN, "join", *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        wait_until(self._is_up, lambda: f"it does not boot: {self._console.read_text()}")

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"it does not boot: {self._console.read_text()}")
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            return False
        self.leader = int(children[0])
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in (
            "running",
            "degraded",
        )

    def close(self) -> None:
        """Shut the machine down, and remove its groups."""
        if hasattr(self, "leader"):
            with suppress(ProcessLookupError):
                os.kill(self.leader, POWER_OFF)
        if hasattr(self, "_process"):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20 if hasattr(self, "leader") else 0)
            self._process.kill()
            self._process.wait()
        for group in self._groups:
            remove(group)

    @property
    def root(self) -> Path:
        """Its files, as this machine sees them."""
        return Path(f"/proc/{self.leader}/root")

    def run(
        self, *words: str, check: bool = True, enter: Sequence[str] = ("--all",)
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end.

        Args:
            words: The command.
            check: Whether a status other than 0 is an error.
            enter: Which namespaces it runs in, and as whom: options of nsenter.
        """
        inside = ["nsenter", "--target", str(self.leader), *enter, "--"]
        done = subprocess.run(
            [*inside, *words],
            env={**os.environ, "PATH": PATH},
            capture_output=True,
            text=True,
            check=False,
            timeout=5 * PATIENCE_SECONDS,  # An installation takes a while.
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done

    def show(self, unit: str) -> dict[str, str]:
        """All properties of a unit."""
        lines = self.run("systemctl", "show", "--all", unit).stdout.splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def journal(self, unit: str) -> str:
        """What a unit, and systemd about it, has said."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout


@contextmanager
def booted(layer: Path, console: Path) -> Iterator[Booted]:
    """A machine that is up, of which nothing is left; the arguments are those of ``Booted``."""
    remove_leftovers()
    machine = Booted(layer, console)
    try:
        machine.boot()
        yield machine
    finally:
        machine.close()


def wait_until(condition: Callable[[], Any], why: Callable[[], str]) -> Any:
    """What a condition returns once that is true; an AssertionError with the reason if never."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < ends, why()
        time.sleep(LOOK_SECONDS)
    return found


# Control groups


def _hierarchies() -> Iterator[Path]:
    """The group that this process is in, in each hierarchy."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (CONTROL_GROUPS / "cgroup.controllers").exists():
            yield CONTROL_GROUPS  # A group with processes has none with controllers, but the root.
            return
        mount = controllers.removeprefix("name=") or "unified"
        if (found := CONTROL_GROUPS / mount / path.lstrip("/")).is_dir():
            yield found


def groups_of(pid: int) -> list[Path]:
    """The groups of a machine that a process has booted."""
    return [hierarchy / f"{PREFIX}-{pid}" for hierarchy in _hierarchies()]


def remove_leftovers() -> None:
    """Remove the machines of processes that have ended without doing so."""
    for hierarchy in _hierarchies():
        for group in hierarchy.glob(f"{PREFIX}-*"):
            owner = re.fullmatch(rf"{PREFIX}-(\d+)", group.name)
            if owner and not Path("/proc", owner[1]).exists():
                remove(group)


def remove(group: Path) -> None:
    """Remove a control group with all that is in it, processes too."""

    def is_gone() -> bool:
        folders = [Path(folder) for folder, _, _ in os.walk(group, topdown=False)]
        for folder in folders:
            with suppress(OSError):
                for pid in (folder / "cgroup.procs").read_text().split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                folder.rmdir()
        return not group.exists()

    wait_until(is_gone, lambda: f"{group} stays")
