"""Crashes, signals and restarts of real daemons."""

import asyncio
import signal

import pytest
from tests.rig import PATIENCE_SECONDS

pytestmark = pytest.mark.processes


def test_a_killed_server_and_a_killed_worker_catch_up(running, left_running) -> None:
    """SIGKILL of both in mid-run: training goes on without them, and both return to it."""

    async def main() -> None:
        async with running(steps=0, seed=3) as rig:
            await rig.start_all()
            others = ("s1", "s2", "s3", "s4")
            await rig.wait_for_step(20, *others)
            for victim in ("s0", "w0"):
                rig.daemons.process(victim).kill()
                assert await rig.daemons.process(victim).wait() == -signal.SIGKILL
            behind = await rig.step("s1")
            await rig.wait_for_step(behind + 30, *others)

            await rig.start("s0", "w0")

            target = await rig.step("s1") + 30
            status = await rig.wait_for("s0", lambda status: status["step"] >= target)
            assert status["catch_ups"] >= 1, "it began at step 0"
            assert status["steps_done"] < status["step"]
            status = await rig.wait_for("w0", lambda status: status["step"] >= target)
            assert status["steps_done"] < status["step"]

    asyncio.run(main())
    assert not left_running()


@pytest.mark.parametrize(("number", "period"), [(signal.SIGKILL, "10"), (signal.SIGTERM, "9999")])
def test_a_server_resumes_from_its_checkpoint(running, tmp_path, number, period) -> None:
    """Killed, it goes on from the last checkpoint; asked to stop, from where it stood."""

    async def main() -> None:
        async with running(steps=0, servers=2, workers=1) as rig:
            servers = rig.cluster.servers
            # Whatever its disk takes to keep the last model.
            patient = ("--checkpoint-period", period, "--stop-seconds", str(PATIENCE_SECONDS))
            for server in servers:
                await rig.start(server, more=("--state", str(tmp_path / server), *patient))
            await rig.start("w0")
            await rig.wait_for_step(25, *servers)
            for server in servers:
                rig.daemons.process(server).send_signal(number)
            for server in servers:
                await rig.daemons.process(server).wait()

            for server in servers:
                await rig.start(server, more=("--state", str(tmp_path / server), *patient))

            for server in servers:
                status = await rig.wait_for(server, lambda status: status["step"] >= 30)
                assert status["step"] - status["steps_done"] >= 10, "it did not begin at step 0"
                log = (rig.file.parent / "logs" / f"{server}.log").read_text()
                assert "resumes from the checkpoint of step" in log

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_kind_of_daemon_in_good_order(running, number) -> None:
    """The first signal ends a server and a worker with status 0, in mid-training."""

    async def main() -> None:
        async with running(steps=0, servers=1, workers=1, f_servers=0) as rig:
            await rig.start_all()
            await rig.wait_for_step(3, "s0", "w0")
            for identity in ("s0", "w0"):
                rig.daemons.process(identity).send_signal(number)
                assert await rig.daemons.process(identity).wait() == 0

    asyncio.run(main())


def test_daemons_end_with_whoever_started_them(running) -> None:
    """A daemon that was told to stops when its standard input ends, whatever ended the starter."""

    async def main() -> None:
        async with running(servers=1, workers=1, f_servers=0) as rig:
            await rig.start("s0")
            await rig.wait_for("s0", lambda status: status["phase"] == "scatter")
            process = rig.daemons.process("s0")
            assert process.stdin is not None
            process.stdin.close()
            assert await process.wait() == 0

    asyncio.run(main())
