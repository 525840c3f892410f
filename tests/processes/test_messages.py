"""What a step costs, counted by the metrics, is what the algorithm says."""

import asyncio

import pytest

pytestmark = pytest.mark.processes

D = 4810
"""Parameters of the task digits."""

N_SERVERS, N_WORKERS = 3, 4

PATIENT = ("--pull-after", "10")
"""Nothing is lost on loopback once all have subscribed, so nobody needs to ask again then."""


@pytest.mark.parametrize("period", [1, 4])
def test_a_scatter_adds_messages_but_no_round_and_a_gather_one_exchange(running, period) -> None:
    """Per step and server: n_w models out, n_w gradients in, (n_ps - 1) / T models each way."""

    async def main() -> None:
        # Nobody may lie, so every quorum is full and nobody ever skips a step.
        plan = {"servers": N_SERVERS, "workers": N_WORKERS, "f_servers": 0, "f_workers": 0}
        async with running(**plan, steps=0, gather_period=period) as rig:
            await rig.start(*rig.cluster.servers, *rig.cluster.workers[1:], more=PATIENT)
            for worker in rig.cluster.workers[1:]:
                await rig.wait_for(worker, _connected_to_all)
            # Everybody else is there and waits for this one.
            await rig.start("w0", more=PATIENT)
            nodes = ("s0", "w1")
            before = {node: await _counts(rig, node, after=20) for node in nodes}
            after = {node: await _counts(rig, node, after=20 + 200) for node in nodes}

            steps = after["s0"]["step"] - before["s0"]["step"]
            cost = {key: after["s0"][key] - before["s0"][key] for key in after["s0"]}
            # A published model is one message of the server's, and one of each of its receivers.
            assert abs(cost["model", "sent"] - steps) <= 1
            assert abs(cost["gradient", "received"] - N_WORKERS * steps) <= N_WORKERS
            gathered = (N_SERVERS - 1) * steps / period
            for direction in ("sent", "received"):
                assert abs(cost["gather", direction] - gathered) <= N_SERVERS - 1
            size = cost["gradient", "received", "bytes"] / cost["gradient", "received"]
            assert 4 * D < size <= 4 * D + 1024

            steps = after["w1"]["step"] - before["w1"]["step"]
            cost = {key: after["w1"][key] - before["w1"][key] for key in after["w1"]}
            assert abs(cost["model", "received"] - N_SERVERS * steps) <= N_SERVERS
            assert abs(cost["gradient", "sent"] - N_SERVERS * steps) <= N_SERVERS

    asyncio.run(main())


def _connected_to_all(status) -> bool:
    peers = status["peers"].values()
    return all(peer["connected"] for peer in peers if peer["role"] == "server")


async def _counts(rig, identity: str, *, after: int):
    """A node's step and its messages by kind and direction, once it has reached a step."""
    await rig.wait_for_step(after, identity)
    counts = {}
    for (name, labels), value in (await rig.samples(identity)).items():
        words = dict(labels)
        if name == "byzsgd_node_step":
            counts["step"] = value
        if name == "byzsgd_node_messages_total":
            counts[words["kind"], words["direction"]] = value
        if name == "byzsgd_node_message_bytes_total":
            counts[words["kind"], words["direction"], "bytes"] = value
    return counts
