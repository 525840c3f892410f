"""``byzsgd doctor`` and ``byzsgd keys rotate`` beside daemons that run."""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.rig import PATIENCE_SECONDS

from byzsgd import memory
from byzsgd.cluster import Role

pytestmark = pytest.mark.processes


def bad(ran) -> dict[str, str]:
    """What was found that is not fine, by what was looked at."""
    lines = [line.split(maxsplit=1) for line in ran.out.splitlines()]
    found = [words.partition(": ") for level, words in lines if level != "ok"]
    return {what: sentence for what, _, sentence in found}


def test_a_key_is_rotated_as_the_commands_say_and_doctor_tells_how_far(running, byzsgd) -> None:
    """Fine; turned away with a key that servers do not know yet; fine again, and in step."""

    async def main() -> None:
        plan = {"servers": 2, "workers": 4, "f_servers": 0, "f_workers": 1}
        async with running(**plan, steps=0) as rig:
            await rig.start_all()
            await rig.wait_for_step(5, "s0", "s1", "w3")

            def doctor(node: str):
                words = ("doctor", rig.file, "--id", node, "--parameters", "5000")
                # However busy this machine is.
                patient = ("--seconds", str(PATIENCE_SECONDS))
                return asyncio.to_thread(byzsgd, *words, *patient)

            for node, role in (("s0", Role.SERVER), ("w3", Role.WORKER)):
                opened = Path(f"/proc/{rig.daemons.process(node).pid}/fd")
                assert len(list(opened.iterdir())) <= memory.descriptors(rig.cluster, role)

            for node in ("s0", "w3", "operator"):
                ran = await doctor(node)
                assert ran.status == 0, ran.out + ran.errors
                assert "keys of" in bad(ran)["key"], "those of all nodes lie here"
                assert bad(ran).keys().isdisjoint({"s0", "s1", "servers", "port", "cluster file"})

            rotated = await asyncio.to_thread(byzsgd, "keys", "rotate", rig.file, "w3")
            assert rotated.status == 0, rotated.errors
            ran = await doctor("w3")
            assert ran.status == 1
            assert "turns our key away" in bad(ran)["s0"]
            assert "turns our key away" in bad(ran)["s1"]

            for server in ("s0", "s1"):
                rig.daemons.process(server).send_signal(signal.SIGHUP)
                await rig.wait_for(server, lambda status: _refused(status, "w3") > 0)
            rig.daemons.process("w3").kill()
            await rig.daemons.process("w3").wait()
            await rig.start("w3")
            await rig.wait_for_step(await rig.step("s0") + 10, "w3")
            ran = await doctor("w3")
            assert ran.status == 0, ran.out

    asyncio.run(main())


def _refused(status, peer: str) -> int:
    return status["peers"][peer]["refused"].get("not-admitted", 0)
