"""Real daemons that wait: who is silent, and what is waited for, is told in three places.

In the log, in a metric and in ``byzsgd status``. Within how many seconds is measured by
``benchmarks/waiting.py``; here it only has to happen.
"""

import asyncio
import json
import signal

import pytest
from tests.rig import PATIENCE_SECONDS

from byzsgd_daemons import initial
from byzsgd_daemons.config import read_cluster

pytestmark = pytest.mark.processes

PLAN = {"task": "quadratic", "steps": 0, "servers": 5, "workers": 4, "f_workers": 1}


async def wait_for_line(rig, node: str, *words: str) -> str:
    """The first line of a node's log with all of these words, and the node's name."""
    file = rig.file.parent / "logs" / f"{node}.log"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            for line in file.read_text().splitlines():
                record = json.loads(line)
                if all(word in record["message"] for word in words):
                    assert record["node"] == node
                    return record["message"]
            await asyncio.sleep(0.05)


async def wait_for_remark(rig, byzsgd, words: str, node: str) -> None:
    """Wait until a line of ``byzsgd status`` begins so, and names a node that says it.

    On a busy machine a node does not answer at every look.
    """
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            shown = await asyncio.to_thread(byzsgd, "status", "--cluster", rig.file)
            lines = [line for line in shown.out.splitlines() if line.startswith(words)]
            if any(node in line for line in lines):
                return


async def wait_for_flags(rig, node: str, name: str, peers: set[str]) -> None:
    """Wait until a metric is 1 for these peers, and 0 for all others."""
    found = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while found != peers:
            samples = (await rig.samples(node)).items()
            found = {dict(of)["peer"] for (at, of), value in samples if at == name and value}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_who_is_waited_for_is_named(running, byzsgd, number) -> None:
    """One worker more than f says nothing, dead or frozen: all servers wait, and say for whom.

    And while only f of them are missing, all say that it is silent and that there is no reserve.
    """

    async def main() -> None:
        async with running(**PLAN) as rig:
            await rig.start_all()
            await rig.wait_for_step(5, *rig.cluster.servers)
            rig.daemons.process("w3").send_signal(number)

            line = await wait_for_line(rig, "s0", "w3 is silent")
            assert "the reserve of workers is 0" in line
            await rig.wait_for("s0", lambda status: status["silent"] == ["w3"])
            await wait_for_flags(rig, "s0", "byzsgd_node_peer_silent", {"w3"})
            await wait_for_remark(rig, byzsgd, "silent: w3 (so say", "s0")

            rig.daemons.process("w0").send_signal(number)

            line = await wait_for_line(rig, "s0", "waits for 1 of 3 gradients", "w0 (last seen")
            assert "w1" not in line, "it has answered"
            waiting = await rig.wait_for("s0", lambda status: status["waiting"])
            assert waiting["waiting"]["lacking"] == ["w0", "w3"]
            await wait_for_flags(rig, "s0", "byzsgd_node_waiting_for", {"w0", "w3"})
            samples = await rig.samples("s0")
            assert samples["byzsgd_node_waiting_seconds", frozenset({("what", "gradients")})] > 0
            await wait_for_remark(rig, byzsgd, "waited for: gradients of w0, w3 (so say", "s0")
            await wait_for_line(rig, "w1", "waits for 4 of 4 models")

            if number == signal.SIGSTOP:
                rig.daemons.process("w0").send_signal(signal.SIGCONT)
                rig.daemons.process("w3").send_signal(signal.SIGCONT)
                await wait_for_line(rig, "s0", "w3 is back")
                await wait_for_line(rig, "s0", "goes on at step")
                await rig.wait_for("s0", lambda status: not status["silent"])

    asyncio.run(main())


def test_who_does_not_read_is_named_and_goes_on(running, byzsgd) -> None:
    """A server that is frozen until its peers hang up: they say so, and it survives that.

    Large models fill its queues before. While it was behind, its connections have ended with
    messages in them that it has not read.
    """

    async def main() -> None:
        async with running(**PLAN) as rig:
            rig.file.write_text(rig.file.read_text() + "\n[task_options]\nd = 50000\n")
            await asyncio.to_thread(rebuild, rig)
            await rig.start_all()
            await rig.wait_for_step(5, *rig.cluster.servers)
            process = rig.daemons.process("s4")
            process.send_signal(signal.SIGSTOP)

            await wait_for_line(rig, "w0", "cannot send to s4: ")
            await rig.wait_for("w0", lambda status: status["unsent"] == ["s4"])
            samples = await rig.samples("w0")
            labels = frozenset({("peer", "s4"), ("kind", "gradient")})
            assert samples["byzsgd_node_dropped_total", labels] > 0
            await wait_for_remark(rig, byzsgd, "cannot be sent to: s4 (so say", "w0")
            for node in ("s0", "w0"):
                await wait_for_line(rig, node, "lost the connection to s4")

            process.send_signal(signal.SIGCONT)
            await wait_for_line(rig, "w0", "s4 is back")
            await wait_for_line(rig, "w0", "can send to s4 again")
            target = await rig.step("s0") + 10
            await rig.wait_for_step(target, *rig.cluster.servers)
            assert process.returncode is None

    asyncio.run(main())


def rebuild(rig) -> None:
    """Build the first model anew, after a change of the cluster file."""
    initial.write(initial.build(read_cluster(rig.file), rig.file.parent), rig.theta_0)
