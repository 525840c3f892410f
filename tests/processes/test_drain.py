"""``byzsgd drain`` beside daemons that run."""

import asyncio

import pytest

pytestmark = pytest.mark.processes


def test_a_node_is_stopped_when_the_one_before_is_back(running, byzsgd) -> None:
    """Safe; not while another is away; safe again, and training goes on without it."""

    async def main() -> None:
        plan = {"servers": 2, "workers": 4, "f_servers": 0, "f_workers": 1}
        async with running(**plan, steps=0) as rig:
            await rig.start_all()
            for node in (*rig.cluster.servers, *rig.cluster.workers):
                await rig.wait_for(node, lambda status: status["ready"] and status["step"] >= 5)

            def drain(node: str, seconds: str):
                words = ("drain", node, "--cluster", rig.file, "--seconds", seconds)
                return asyncio.to_thread(byzsgd, *words)

            assert (await drain("w0", "60")).status == 0
            await _stop(rig, "w0")
            waited = await drain("w1", "0.1")
            assert waited.status == 1
            # On a busy machine others may have been too slow to answer, too.
            assert "w0 does not answer, " in waited.errors
            assert ", and only 1 of 4 workers may be away" in waited.errors

            waits = asyncio.create_task(drain("w1", "100"))
            await rig.start("w0")
            ended = await waits
            assert ended.status == 0, ended.errors
            assert (await rig.status("w0"))["ready"]
            await _stop(rig, "w1")
            await rig.wait_for_step(await rig.step("s0") + 10, "s0", "w0")

            never = await drain("s0", "60")
            assert never.status == 2
            assert "there is no better moment than another" in never.errors

    asyncio.run(main())


async def _stop(rig, identity: str) -> None:
    rig.daemons.process(identity).terminate()
    await rig.daemons.process(identity).wait()
