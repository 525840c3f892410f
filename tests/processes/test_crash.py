"""SIGKILL again and again, power cuts, damaged and lost disks: real daemons come back.

The killing and the listening are those of ``benchmarks/recovery.py``, which does more of it.
"""

import asyncio
import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.rig import attended

from byzsgd.checkpoint import digest_of, load_newest
from byzsgd.cluster import Cluster
from byzsgd.transport import keys
from byzsgd_daemons import initial
from byzsgd_daemons.local import Drill

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]

PERIOD = 20
"""Steps between two checkpoints."""


@pytest.fixture(scope="module")
def recovery() -> ModuleType:
    """``benchmarks/recovery.py``."""
    name = "byzsgd_benchmark_recovery"
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / "recovery.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is quick to write to, however busy the disks are; SIGKILL takes nothing of it.

    A checkpoint that a slow disk was still writing would be skipped for the next one.
    """
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def stormed(running: Callable[..., Any], recovery: ModuleType, disk: Path) -> Callable[..., Any]:
    """A cluster that trains, what kills its nodes, and who listens to its servers."""

    @asynccontextmanager
    async def begin(seed: int, **plan: Any) -> AsyncIterator[tuple[Any, Any, Any]]:
        async with running(task="quadratic", steps=0, seed=seed, **plan) as rig:

            async def start(identity: str) -> None:
                state = ("--state", str(disk / identity), "--checkpoint-period", str(PERIOD))
                await rig.start(identity, more=state if identity in rig.cluster.servers else ())

            async def kill(identity: str) -> None:
                process = rig.daemons.process(identity)
                process.kill()
                assert await process.wait() == -signal.SIGKILL

            storm = recovery.Storm(rig.cluster, kill, start, random.Random(seed))
            for identity in (*rig.cluster.servers, *rig.cluster.workers):
                await start(identity)
            asynchronous = plan.get("variant", "asynchronous") == "asynchronous"
            listener = rig.cluster.workers[-1] if asynchronous else "operator"
            secret = keys.read_secret(rig.file.parent / "keys" / f"{listener}.key")
            d = len(initial.read(rig.theta_0).vector)
            async with recovery.Observer(rig.cluster, listener, secret, d) as observer:
                yield rig, storm, observer

    return begin


def test_training_survives_kills_at_random_moments(stormed: Any, left_running: Any) -> None:
    """SIGKILL of f_servers servers and f_workers workers at once, again and again.

    The others go on, the killed ones rejoin, and no correct server publishes a step lower than
    before without a new boot id.
    """

    async def main() -> None:
        async with stormed(seed=5) as (rig, storm, observer):
            for _ in range(3):
                await storm.strike()

            assert sum(map(len, storm.back.values())) == 3 * (1 + 2)
            assert observer.fell == []
            assert observer.lives >= len(rig.cluster.servers) + 1

    asyncio.run(main())
    assert not left_running()


def saved(folder: Path, cluster: Cluster, d: int) -> int:
    """The step that a server would resume at."""
    found, _ = load_newest(folder / "checkpoints", d=d, digest=digest_of(cluster))
    return found.step if found else 0


@pytest.mark.parametrize("variant", ["asynchronous", "synchronous"])
def test_a_power_cut_costs_one_checkpoint_at_most(stormed: Any, disk: Path, variant: str) -> None:
    """All nodes get SIGKILL at once: the training goes on from what f_ps + 1 servers had saved.

    Nothing but the checkpoint that was being written at that moment may be missing.
    """

    async def main() -> None:
        rounds = {"gather_period": 3, "round_timeout": 1.0} if variant == "synchronous" else {}
        async with stormed(seed=6, variant=variant, **rounds) as (rig, storm, observer):
            await rig.wait_for_step(2 * PERIOD, *rig.cluster.servers)
            d = len(initial.read(rig.theta_0).vector)
            begin = storm.start
            on_disk: dict[str, int] = {}

            async def start(identity: str) -> None:
                if identity in rig.cluster.servers:
                    on_disk[identity] = saved(disk / identity, rig.cluster, d)
                await begin(identity)

            storm.start = start
            cut = await storm.power_cut(observer)

            known = sorted(on_disk.values(), reverse=True)[rig.cluster.f_servers]
            assert cut.resumed >= known
            assert known >= (cut.reached // PERIOD - 1) * PERIOD
            assert observer.fell == []

    asyncio.run(main())


def test_a_server_that_lost_its_disk_rejoins_and_no_liar_is_believed(
    stormed: Any, disk: Path
) -> None:
    """By the median of its peers: the model that it comes back with is that of the correct ones."""

    async def main() -> None:
        # Gathers that are far apart do not mend what a catch-up would have spoiled.
        async with stormed(seed=7, gather_period=25) as (rig, storm, observer):
            await rig.wait_for_step(60, *rig.cluster.servers)
            for victim in ("s0", "s4"):
                await storm.kill(victim)
            shutil.rmtree(disk / "s0")
            lies = Drill(server_attack="sign-flip")
            await rig.daemons.start_liars(frozenset({"s4"}), lies, rig.theta_0)
            await storm.start("s0")
            await rig.wait_for("s0", lambda status: status["catch_ups"])
            await rig.wait_for_step(await rig.step("s1") + 30, "s0", "s1")

            told = [each for each in observer.models if each.step > 60]
            before = next(each.boot for each in observer.models if each.server == "s0")
            own = [each for each in told if each.server == "s0"]
            came_back = next(each for each in own if each.boot != before)
            near = [
                each.vector
                for each in told
                if each.server in ("s1", "s2", "s3") and abs(each.step - came_back.step) <= 25
            ]
            theta_0 = initial.read(rig.theta_0).vector
            wrong = min(distance(came_back.vector, other) for other in (theta_0, -near[0]))
            right = min(distance(came_back.vector, other) for other in near)
            assert right < wrong / 10

    asyncio.run(main())


def distance(one: Any, other: Any) -> float:
    return float(np.linalg.norm(one - other))


def test_a_damaged_newest_checkpoint_is_passed_over(running: Any, tmp_path: Path) -> None:
    """A real daemon says which file, and resumes from the one before."""

    async def main() -> None:
        async with running(task="quadratic", steps=0, servers=1, workers=1, f_servers=0) as rig:
            words = ("--state", str(tmp_path), "--checkpoint-period", "5")
            await rig.start("s0", more=words)
            await rig.start("w0")
            # One of step 5 was begun at once, however slow the disk is: then there are two.
            await rig.wait_for("s0", lambda status: (status["checkpoint"]["step"] or 0) > 5)
            rig.daemons.process("s0").kill()
            await rig.daemons.process("s0").wait()
            older, newest = sorted((tmp_path / "checkpoints").glob("step-*"))[-2:]
            newest.write_bytes(newest.read_bytes()[:-1])
            pipe = newest.with_name("step-999999999999.safetensors")
            os.mkfifo(pipe)

            await rig.start("s0", more=words)
            await rig.wait_for("s0", lambda status: status["steps_done"])
            log = (rig.file.parent / "logs" / "s0.log").read_text()
            assert f"{newest}: cannot be read, so it is passed over" in log
            assert f"{pipe}: is no file, so it is passed over" in log
            assert f"resumes from the checkpoint of step {int(older.name[5:17])}" in log

    asyncio.run(main())


# A disk that takes nothing


@pytest.fixture
def mounts() -> None:
    """Skips where no file system can be mounted in a name space of its own."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("NOT TESTED: no unshare and nsenter here; apt-get install util-linux")
    command = [*OWN_MOUNTS, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a real full disk needs root and mounts: {done.stderr.strip()}")


OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")

MOUNTED = 'mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@"'
"""Runs a command that sees a small disk of its own at a folder."""


class SmallDisk:
    """The disk that a process sees at a folder, and nobody else."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid, self._folder = pid, folder
        self._filler = Path(f"/proc/{pid}/root{folder}/filler")

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def empty(self) -> None:
        self._filler.unlink()

    def remount(self, how: str) -> bool:
        """Whether it is mounted read-only, ``ro``, or ``rw`` from here on; not while it is used."""
        command = ["nsenter", "-t", str(self._pid), "-m", "mount", "-o", f"remount,{how}"]
        done = subprocess.run([*command, self._folder], capture_output=True, check=False)
        return done.returncode == 0


@pytest.mark.usefixtures("mounts")
def test_training_goes_on_with_a_full_and_with_a_read_only_disk(
    running: Any, tmp_path: Path
) -> None:
    """Metric, log and /status say so, and when it is over; a stop meanwhile is no success."""
    state, log = tmp_path / "state", tmp_path / "s0.log"
    state.mkdir()

    async def main() -> None:
        async with running(task="quadratic", steps=0, servers=1, workers=1, f_servers=0) as rig:
            words = ["server", "--id", "s0", "--cluster", rig.file, "--initial", rig.theta_0]
            words += ["--state", state, "--checkpoint-period", "5", "--until-stdin-closes"]
            with log.open("wb") as file:
                process = await asyncio.create_subprocess_exec(
                    *(*OWN_MOUNTS, "sh", "-c", MOUNTED, state),
                    *(sys.executable, "-m", "byzsgd_daemons.cli", *words),
                    stdin=asyncio.subprocess.PIPE,
                    stderr=file,
                )
            try:
                await rig.start("w0")
                await drive(rig, process)
                process.terminate()
                assert await process.wait() == 1
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def drive(rig: Any, process: asyncio.subprocess.Process) -> None:
        disk = SmallDisk(process.pid, state)
        status = await rig.wait_for("s0", lambda status: status["checkpoint"]["step"])
        assert status["checkpoint"]["error"] is None

        def is_full(status: Any) -> bool:
            disk.fill()  # Older checkpoints go, and leave room.
            return "the disk is full" in (status["checkpoint"]["error"] or "")

        status = await rig.wait_for("s0", is_full)
        kept = status["checkpoint"]["step"]
        await rig.wait_for_step(status["step"] + 20, "s0")
        disk.empty()
        await rig.wait_for("s0", lambda status: status["checkpoint"]["error"] is None)

        await rig.wait_for("s0", lambda _: disk.remount("ro"))
        error = "the disk is read-only"
        status = await rig.wait_for("s0", lambda s: error in (s["checkpoint"]["error"] or ""))
        assert status["checkpoint"]["step"] > kept
        await rig.wait_for_step(status["step"] + 20, "s0")
        samples = await rig.samples("s0")
        for reason in ("full", "read-only"):
            labels = frozenset({("reason", reason)})
            assert samples["byzsgd_server_checkpoint_failures_total", labels] >= 1
        assert samples["byzsgd_server_checkpoint_failing", frozenset()] == 1

    asyncio.run(main())
    said = log.read_text()
    assert said.count("checkpoint not saved, training goes on") == 2
    assert said.count("checkpoints are saved again") == 1
    assert "is not saved, on disk is step" in said.splitlines()[-1]


@pytest.mark.usefixtures("mounts")
def test_a_local_training_goes_on_with_a_full_disk(tmp_path: Path) -> None:
    """It says so once, and at its end what it could not leave: that is no success."""
    out = tmp_path / "run"
    out.mkdir()
    words = ["local", "--task", "quadratic", "--steps", "0", "--servers", "1", "--workers", "1"]
    words += ["--f-servers", "0", "--f-workers", "0", "--out", str(out)]
    said: list[str] = []
    own = [*OWN_MOUNTS, "sh", "-c", MOUNTED, out]
    with attended([*own, sys.executable, "-m", "byzsgd_daemons.cli", *words]) as process:
        assert process.stdout is not None
        disk, since = SmallDisk(process.pid, out), 0
        for line in process.stdout:
            said.append(line)
            if line.startswith("step "):
                disk.fill()  # Older checkpoints go, and leave room.
                since += any("training goes on" in each for each in said)
                if since == 3:
                    process.send_signal(signal.SIGINT)

    text = "".join(said)
    assert process.returncode == 1, text
    assert text.count("training goes on") == 1
    assert f"{out}/points.csv: not written, training goes on: No space left on device\n" in text
    assert re.search(rf"{out}/points.csv: lacks the last \d+ points: No space left on", said[-2])
    assert f"{out}/model.safetensors: cannot be written: " in said[-1]


# Before the start


def test_a_signal_while_the_first_model_is_built_ends_both(running: Any, tmp_path: Path) -> None:
    """The server ends with status 0, and the process that builds theta_0 for it does not stay."""

    async def main() -> None:
        async with running(servers=1, workers=1, f_servers=0) as rig:
            folder = rig.file.parent
            (folder / "own.py").write_text(
                "import os, pathlib, signal\n"
                f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
                "signal.pause()\n"
            )
            rig.file.write_text(rig.file.read_text().replace('"digits"', '"own.py:f"'))
            os.mkfifo(tmp_path / "pid")
            await rig.daemons.start("server", "s0")
            builder = int(await asyncio.to_thread((tmp_path / "pid").read_bytes))
            assert Path(f"/proc/{builder}").exists()

            rig.daemons.process("s0").terminate()
            assert await rig.daemons.process("s0").wait() == 0
            assert not Path(f"/proc/{builder}").exists()
            log = (folder / "logs" / "s0.log").read_text()
            assert "stops: a signal asked for it, before the start" in log

    asyncio.run(main())
