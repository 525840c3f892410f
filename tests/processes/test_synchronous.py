"""The synchronous variant in real daemons: what it saves, and what a silent node costs."""

import asyncio

import pytest

pytestmark = pytest.mark.processes

STEPS = 100
GATHER_PERIOD = 5


async def totals(rig, identities) -> dict:
    """Counters added up over some nodes: messages by kind and direction, and others by name."""
    found: dict = {}
    for identity in identities:
        for (name, labels), value in (await rig.samples(identity)).items():
            words = dict(labels)
            key = name
            if name in ("byzsgd_node_messages_total", "byzsgd_node_message_bytes_total"):
                key = (
                    name.rpartition("_")[0].rpartition("_")[2],
                    words["kind"],
                    words["direction"],
                )
            found[key] = found.get(key, 0) + value
    return found


async def train(running, **plan) -> dict:
    """What the workers of a cluster counted in a training without liars, added up."""
    async with running(steps=STEPS, **plan) as rig:
        await rig.start_all()
        await rig.wait_for_step(STEPS, *rig.cluster.servers)
        return await totals(rig, rig.cluster.workers)


def test_a_worker_receives_about_one_model_in_a_scatter(running) -> None:
    """Expected pulls per worker and step: about n_ps / (n_ps - f_ps), where nobody lies.

    Against n_ps models a step of the asynchronous variant, whose workers hear every server.
    """

    async def main() -> None:
        # Nothing here depends on speed: a busy machine passes nobody over.
        plan = {"variant": "synchronous", "gather_period": GATHER_PERIOD, "round_timeout": 20.0}
        counted = await train(running, **plan)
        steps = counted["byzsgd_node_steps_total"]
        scatters = counted["byzsgd_worker_scatter_steps_total"]
        pulls = counted["byzsgd_worker_scatter_pulls_total"]
        models = counted["messages", "model", "received"]

        assert steps >= 0.9 * 7 * STEPS
        assert scatters / steps > 1 - 1 / GATHER_PERIOD - 0.15  # The first ten steps are none.
        assert pulls / scatters <= 1.35
        assert counted.get("byzsgd_worker_fallback_steps_total", 0) <= 0.02 * scatters
        # In all other steps it hears all five servers; late answers come on top.
        assert models <= pulls + 5 * (steps - scatters) + 0.1 * steps
        assert models / steps < 0.6 * 5

    asyncio.run(main())
