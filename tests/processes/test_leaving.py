"""What an operator does with a running cluster: status, and leaving with the model."""

import asyncio

import pytest
from safetensors.torch import load_file
from tests.rig import PATIENCE_SECONDS

from byzsgd.tasks.digits import network
from byzsgd_daemons.local import Drill

pytestmark = pytest.mark.processes


def test_an_operator_leaves_with_the_median_of_a_quorum(running, byzsgd, tmp_path) -> None:
    """A lying server answers too: the model that comes out is as good as the correct ones."""

    async def main() -> None:
        async with running(steps=120) as rig:
            await rig.start("s0", "s1", "s2", "s3", *rig.cluster.workers)
            drill = Drill(server_attack="random")
            await rig.daemons.start_liars(frozenset({"s4"}), drill, rig.theta_0)
            await rig.wait_for_step(10, "s0")

            out = tmp_path / "model.safetensors"
            fetched = await asyncio.to_thread(
                byzsgd, "fetch", out, "--cluster", rig.file, "--step", "120", "--seconds", "100"
            )

            assert fetched.status == 0, fetched.errors
            assert "at step 120" in fetched.out
            assert float(fetched.out.split()[-1]) > 0.9
            network().load_state_dict(load_file(out))

            rows = {"s0": ""}
            async with asyncio.timeout(PATIENCE_SECONDS):
                while "done at step 120" not in rows["s0"]:  # It may be too busy to answer.
                    shown = await asyncio.to_thread(byzsgd, "status", "--cluster", rig.file)
                    rows = {line.split()[0]: line for line in shown.out.splitlines() if line}
            assert shown.status == 0, shown.errors
            assert "no answer" in rows["s4"], "the adversary serves no HTTP"
            assert rows.keys() >= {*rig.cluster.servers, *rig.cluster.workers}

    asyncio.run(main())


def test_too_few_answers_are_no_model(running, byzsgd, tmp_path) -> None:
    """Two of five servers are there: one line that names them, status 1, and no file."""

    async def main() -> None:
        async with running() as rig:
            await rig.start("s0", "s1")
            await rig.wait_for("s0", lambda status: status["phase"] == "scatter")
            await rig.wait_for("s1", lambda status: status["phase"] == "scatter")
            out = tmp_path / "model.safetensors"

            fetched = await asyncio.to_thread(
                byzsgd, "fetch", out, "--cluster", rig.file, "--seconds", "4"
            )

            assert fetched.status == 1
            (line,) = fetched.errors.splitlines()
            assert line.startswith("byzsgd: no 4 servers gave a model of one step within 4 s")
            assert "s0 (step 0), s1 (step 0)" in line
            assert not out.exists()

    asyncio.run(main())
