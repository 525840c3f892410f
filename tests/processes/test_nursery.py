"""Daemons that are forked are processes like any other, and end with whoever started them."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byzsgd.errors import ByzsgdError
from byzsgd_daemons.nursery import Nursery

pytestmark = pytest.mark.processes


PATIENCE_MS = 120_000
"""Far above what anything here takes."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """One for all tests that do not end it."""
    with Nursery() as nursery:
        yield nursery


def words_of(pid: int) -> list[str]:
    """The command line that ``ps`` shows of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def status_of(nursery: Nursery, log: Path, *words: str) -> int:
    """How a command line of a nursery ends."""
    with log.open("ab") as file:
        child = nursery.start(words, file)
    await child.wait_started()
    return await child.wait()


def test_children_are_processes_of_their_own(running) -> None:
    """Each has its pid, its session, and in ``ps`` the command line of a daemon on its own."""

    async def main() -> None:
        async with running(servers=1, workers=1, f_servers=0) as rig:
            await rig.start_all()
            pids = [rig.daemons.process(identity).pid for identity in ("s0", "w0")]
            assert len({*pids, os.getpid()}) == 3
            assert [os.getsid(pid) for pid in pids] == pids
            assert parent_of(pids[0]) == parent_of(pids[1]) != os.getpid()
            for pid, role, identity in zip(pids, ("server", "worker"), ("s0", "w0"), strict=True):
                words = words_of(pid)
                assert words[1:4] == ["-m", "byzsgd_daemons.cli", role]
                assert words[words.index("--id") + 1] == identity

    asyncio.run(main())


def test_a_child_writes_to_its_log_and_its_status_is_known(nursery, tmp_path) -> None:
    """As if the command had been run in a shell."""
    log = tmp_path / "log"

    assert asyncio.run(status_of(nursery, log, "check", "nowhere.toml")) == 2

    assert log.read_text().startswith("byzsgd: nowhere.toml: cannot be read")


def test_a_daemon_that_ends_at_its_start_tells_why(running) -> None:
    """Its status and the last lines of its log are what the starter shows."""

    async def main() -> None:
        async with running() as rig:
            await rig.start("w0", more=("--device", "tpu"))
            assert await rig.daemons.process("w0").wait() == 2
            said = rig.daemons.ended()["w0"]
            assert said.startswith("w0 has ended (exit 2): byzsgd: task digits: device 'tpu'")

    asyncio.run(main())


def test_a_nursery_serves_one_event_loop_after_the_other(nursery, tmp_path) -> None:
    """So trainings that follow one another can share one."""
    for name in ("one", "two"):
        log = tmp_path / name
        assert asyncio.run(status_of(nursery, log, "check", f"{name}.toml")) == 2
        assert log.read_text().startswith(f"byzsgd: {name}.toml: ")


def test_a_nursery_has_one_thread(nursery, tmp_path) -> None:
    """A process that forks must have no other, of Python or of a library."""
    asyncio.run(status_of(nursery, tmp_path / "log", "--version"))

    assert len(list(Path(f"/proc/{nursery.pid}/task").iterdir())) == 1


TASK = """
import random
import numpy as np

def task():
    raise RuntimeError(f"{random.random()} {np.random.random()}")
"""


def test_every_child_has_chance_of_its_own(running) -> None:
    """Neither Python's nor numpy's generator gives two children the same numbers."""

    async def main() -> None:
        async with running(workers=2, f_workers=0) as rig:
            (rig.file.parent / "mine.py").write_text(TASK)
            rig.file.write_text(rig.file.read_text().replace('"digits"', '"mine.py:task"'))
            await rig.start("w0", "w1")
            drawn = []
            for worker in ("w0", "w1"):
                assert await rig.daemons.process(worker).wait() == 2
                said = rig.daemons.ended()[worker].partition("RuntimeError: ")[2]
                drawn += said.split()[:2]
            assert len({float(number) for number in drawn}) == 4

    asyncio.run(main())


PREPARED = """
import json, sys
from byzsgd_daemons import nursery
nursery.prepare()
torch = sys.modules["torch"]
print(json.dumps({"modules": list(sys.modules), "cuda": torch.cuda.is_initialized()}))
"""


@pytest.fixture(scope="module")
def imported() -> Any:
    """What a process is like that has imported what a nursery does."""
    done = subprocess.run([sys.executable, "-c", PREPARED], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_a_nursery_imports_no_attack_code(imported) -> None:
    """What can lie is in no correct daemon's process, forked or not."""
    liars = ("byzsgd.attacks", "byzsgd.simulation", "byzsgd_daemons.adversary")

    assert [name for name in imported["modules"] if name.startswith(liars)] == []


def test_a_nursery_opens_no_device(imported) -> None:
    """A process that has opened one must not fork."""
    assert imported["cuda"] is False


def test_who_is_interrupted_at_a_start_leaves_no_daemon(running, left_running) -> None:
    """A child that is under way ends like those that run."""

    async def main() -> None:
        async with running() as rig:
            await rig.start("w0")  # From here on the nursery is quick.
            start = asyncio.create_task(rig.start("s0"))
            await asyncio.wait([start], timeout=0)
            start.cancel()
        assert rig.daemons.process("s0").returncode is not None

    asyncio.run(main())
    assert not left_running()


def test_children_end_with_their_nursery(tmp_path) -> None:
    """Nobody could say how they end later; and who asks for another learns why there is none."""

    async def main() -> None:
        with Nursery() as nursery, (tmp_path / "log").open("ab") as log:
            words = ("check", "/dev/stdin")  # Waits for ever for what nobody writes.
            child = nursery.start(words, log)
            await child.wait_started()
            os.kill(nursery.pid, signal.SIGKILL)
            assert await child.wait() == -signal.SIGKILL
            with pytest.raises(ByzsgdError, match=r"has ended \(SIGKILL\)"):
                nursery.start(words, log)

    asyncio.run(main())


STARTER = """
import asyncio, json, signal, sys
from pathlib import Path
from byzsgd_daemons.config import read_cluster
from byzsgd_daemons.local import Daemons
from byzsgd_daemons.nursery import Nursery

async def main(file, theta_0, logs):
    with Nursery() as nursery:
        async with Daemons(file, read_cluster(file), logs, nursery) as daemons:
            await daemons.start("server", "s0", "--initial", str(theta_0))
            await daemons.start("worker", "w0")
            await daemons.start("worker", "w1")
            daemons.process("w1").send_signal(signal.SIGSTOP)
            pids = [daemons.process(identity).pid for identity in ("s0", "w0", "w1")]
            print(json.dumps([nursery.pid, *pids]), flush=True)
            await asyncio.Event().wait()

asyncio.run(main(*map(Path, sys.argv[1:])))
"""


def test_nothing_outlives_a_starter_that_was_killed(running, tmp_path, left_running) -> None:
    """SIGKILL of the starter ends the nursery and all daemons, a frozen one among them."""

    async def main() -> None:
        async with running(servers=1, workers=2, f_servers=0) as rig:
            arguments = (rig.file, rig.theta_0, tmp_path / "logs")
            with subprocess.Popen(
                [sys.executable, "-c", STARTER, *arguments], stdout=subprocess.PIPE
            ) as starter:
                assert starter.stdout is not None
                pids = json.loads(starter.stdout.readline())
                ends = [os.pidfd_open(pid) for pid in pids]
                starter.kill()
            ended = select.poll()
            for end in ends:
                ended.register(end, select.POLLIN)
            while ends:
                found = ended.poll(PATIENCE_MS)
                assert found, "a process stays"
                for end, _ in found:
                    ended.unregister(end)
                    os.close(end)
                    ends.remove(end)

    asyncio.run(main())
    assert not left_running()
