"""Wire types of two bytes in real daemons: a training, its bytes, and leaving with the model."""

import asyncio

import numpy as np
import pytest
from safetensors.numpy import load_file

from byzsgd.cluster import WireType

pytestmark = pytest.mark.processes

STEPS = 40


@pytest.mark.parametrize("half", [WireType.FLOAT16, WireType.BFLOAT16])
def test_a_cluster_learns_with_half_the_bytes(running, byzsgd, tmp_path, half: WireType) -> None:
    """Models and gradients take two bytes a coordinate, votes four; the model is float32."""

    async def main() -> None:
        async with running(steps=STEPS, wire_type=half.value) as rig:
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
            d = 4810
            assert 2 * d < sizes["model"] < 2 * d + 200
            assert 2 * d < sizes["gradient"] < 2 * d + 200
            assert 4 * d < sizes["gather"] < 4 * d + 200
            out = tmp_path / "model.safetensors"
            words = ("fetch", out, "--cluster", rig.file, "--seconds", "100")
            ran = await asyncio.to_thread(byzsgd, *words)
            assert ran.status == 0, ran.errors
            bits = np.concatenate([v.ravel() for v in load_file(out).values()]).view(np.uint32)
            assert bits.size == d
            assert (bits & 0x1FFF).any(), "float32 to the last bit"

    asyncio.run(main())
