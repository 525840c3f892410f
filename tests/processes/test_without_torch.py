"""A server where nothing is installed that learns: no torch, and no data sets."""

import asyncio
import sys

import pytest

pytestmark = pytest.mark.processes

ABSENT = ("torch", "sklearn", "scipy", "pandas", "mlxtend", "matplotlib")

START = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))  # An import of one raises ModuleNotFoundError.
from byzsgd_daemons.cli import main
sys.exit(main())
"""


def test_a_server_needs_no_torch_once_it_has_its_first_model(running, tmp_path) -> None:
    """It trains a model of torch, saves it, and stops in good order."""

    async def main() -> None:
        async with running(steps=0, servers=1, workers=1, f_servers=0) as rig:
            await rig.start("w0")
            words = ("server", "--cluster", rig.file, "--id", "s0", "--initial", rig.theta_0)
            server = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", START, *words, "--state", tmp_path / "state")
            )
            try:
                await rig.wait_for_step(5, "s0", "w0")
                server.terminate()
                assert await server.wait() == 0
            finally:
                if server.returncode is None:
                    server.kill()
                    await server.wait()
        assert list((tmp_path / "state" / "checkpoints").iterdir())

    asyncio.run(main())
