"""Wire types of two bytes in real daemons: a training, its bytes, and leaving with the model."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from byzsgd.cluster import WireType
from byzsgd_daemons import initial

pytestmark = pytest.mark.processes

STEPS = 40


BATCHNORM = Path(__file__).parents[2] / "examples" / "digits_batchnorm.py"


@pytest.mark.parametrize(
    ("half", "task", "buffers"),
    [(WireType.FLOAT16, "digits", 0), (WireType.BFLOAT16, f"{BATCHNORM}:digits", 48)],
    ids=["float16", "bfloat16 with buffers"],
)
def test_a_cluster_learns_with_half_the_bytes(
    running, byzsgd, tmp_path, half: WireType, task: str, buffers: int
) -> None:
    """Models and gradients take two bytes a parameter, votes and buffers four; the model too."""

    async def main() -> None:
        async with running(steps=STEPS, task=task, wire_type=half.value) as rig:
            theta_0 = initial.read(rig.theta_0)
            assert theta_0.buffers == buffers
            await rig.start_all()
            await rig.wait_for_step(STEPS, *rig.cluster.servers)
            samples = await rig.samples("s1")
            sizes = {}
            for kind, direction in (
                ("model", "sent"),
                ("gradient", "received"),
                ("gather", "received"),
            ):
                labels = frozenset({("kind", kind), ("direction", direction)})
                messages = samples["byzsgd_node_messages_total", labels]
                size = samples["byzsgd_node_message_bytes_total", labels]
                assert messages >= STEPS / 2, kind
                sizes[kind] = size / messages
            d = len(theta_0.vector)
            size = 2 * (d - buffers) + 4 * buffers
            assert size < sizes["model"] < size + 200
            assert size < sizes["gradient"] < size + 200
            assert 4 * d < sizes["gather"] < 4 * d + 200
            out = tmp_path / "model.safetensors"
            words = ("fetch", out, "--cluster", rig.file, "--seconds", "100")
            ran = await asyncio.to_thread(byzsgd, *words)
            assert ran.status == 0, ran.errors
            tensors = load_file(out)
            vectors = [v.ravel() for v in tensors.values() if v.dtype == np.float32]
            bits = np.concatenate(vectors).view(np.uint32)
            assert bits.size == d
            assert (bits & 0x1FFF).any(), "float32 to the last bit"
            averages = [v for name, v in tensors.items() if "running" in name]
            assert sum(v.size for v in averages) == buffers
            assert all((v.view(np.uint32) & 0x1FFF).any() for v in averages), "so are averages"

    asyncio.run(main())
