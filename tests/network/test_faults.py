"""What a network can do to a cluster: it goes on or stands still as promised, and heals.

After every fault all correct nodes make progress, and what an operator leaves with is as good as
without the fault. No step of a correct node ever falls: that is looked at in every look at a node.
How long it takes is measured by ``benchmarks/network.py``.
"""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager

import pytest

pytestmark = pytest.mark.processes

MARGIN = 0.02
"""Accuracy that chance takes or gives from one step to the next."""

DRIFT_MAX = 0.05
"""Of correct servers, over the norm of the model; at the start it is about 1 without gathers."""


@pytest.fixture
def trained(runner, clusters) -> Callable[..., None]:
    """Runs a coroutine on a cluster that has trained, and looks afterwards whether all is well."""

    def run(test, **plan) -> None:
        rig, undisturbed = clusters(**plan)

        async def main() -> None:
            await rig.progress(rig.nodes)
            try:
                await test(rig)
            finally:
                rig.network.heal()
            await rig.progress(rig.nodes)
            result = await rig.fetch()
            assert result.step > undisturbed.step
            assert result.accuracy_worst >= undisturbed.accuracy - MARGIN
            assert result.drift <= DRIFT_MAX
            for node, daemon in rig.daemons.items():
                assert daemon.poll() is None, f"{node}: {rig.log(node)[-2000:]}"

        runner.run(main())

    return run


@asynccontextmanager
async def standing_still(rig, nodes, missing):
    """Enters once these nodes wait for others; meanwhile they must not pass the next step."""
    await rig.stands_still(nodes, missing)
    before = await rig.furthest()
    yield
    assert await rig.furthest() <= before + 1


def test_a_minority_is_cut_off(trained) -> None:
    """The others go on, and say who is silent; it catches up once it is back."""

    async def test(rig) -> None:
        rig.network.cut("s0", "w0")
        others = [node for node in rig.nodes if node not in ("s0", "w0")]
        await rig.progress(others)
        await rig.wait_for(["s1"], lambda status: {"s0", "w0"} <= set(status["silent"]))
        await rig.wait_for(["w1"], lambda status: status["silent"] == ["s0"])
        await rig.stands_still(["s0"], [])  # For gradients, or in a gather.
        await rig.stands_still(["w0"], [])

    trained(test)


def test_no_quorum_is_left(trained) -> None:
    """Two servers and two workers are cut off: all stand still until it heals, and say why."""

    async def test(rig) -> None:
        rig.network.cut("s0", "s1", "w0", "w1")
        async with standing_still(rig, ["s2", "s3", "s4"], []):
            waits = [(await rig.says(node))["waiting"] for node in ("s2", "s3", "s4")]
            for waiting in waits:
                lacking = {"w0", "w1"} if waiting["for"] == "gradients" else {"s0", "s1"}
                assert lacking <= set(waiting["lacking"])
            await rig.stands_still(["w2", "w3"], ["s0", "s1"])

    trained(test)


def test_nothing_comes_from_a_minority(trained) -> None:
    """One way: its words are lost, and it hears those of the others only as long as TCP lets it."""

    async def test(rig) -> None:
        others = [node for node in rig.nodes if node not in ("s0", "w0")]
        rig.network.block(["s0", "w0"], others)
        await rig.progress(others)
        await rig.wait_for(["s1"], lambda status: {"s0", "w0"} <= set(status["silent"]))

    trained(test)


def test_nothing_comes_to_a_minority(trained) -> None:
    """The other way round."""

    async def test(rig) -> None:
        others = [node for node in rig.nodes if node not in ("s0", "w0")]
        rig.network.block(others, ["s0", "w0"])
        await rig.progress(others)
        await rig.stands_still(["s0"], [])

    trained(test)


def test_connections_are_reset(trained) -> None:
    """All of a server's, and new ones as well: the others go on, and dial it again."""

    async def test(rig) -> None:
        await connected(rig, ["s1", "w0"])
        lost = {node: rig.log(node).count("lost the connection to s0") for node in ("s1", "w0")}
        rig.network.reset("s0")
        others = [node for node in rig.nodes if node != "s0"]
        await rig.progress(others)
        for node, count in lost.items():
            await lost_again(rig, node, count)
        rig.network.heal()
        await connected(rig, ["s1", "w0"])

    trained(test)


async def connected(rig, nodes: list[str]) -> None:
    """Wait until these nodes have a connection to s0."""
    await rig.wait_for(nodes, lambda status: status["peers"]["s0"]["connected"])


async def lost_again(rig, node: str, count: int) -> None:
    """Wait until a node has lost its connection to s0 more often than that."""
    async with asyncio.timeout(120):
        while rig.log(node).count("lost the connection to s0") <= count:
            await asyncio.sleep(0.05)


def test_a_server_gets_another_address(trained) -> None:
    """Behind the same name: everybody who dials it finds it there."""

    async def test(rig) -> None:
        peers = [node for node in rig.nodes if node != "s0"]
        await connected(rig, peers)
        lost = {node: rig.log(node).count("lost the connection to s0") for node in peers}
        rig.network.move("s0")
        for node in peers:
            await lost_again(rig, node, lost[node])
        await connected(rig, peers)

    trained(test)


def lose(network) -> None:
    network.lose(5)


def delay(network) -> None:
    network.delay(100)


def slow(network) -> None:
    network.slow(10)


@pytest.mark.parametrize("fault", [lose, delay, slow])
def test_the_network_is_bad(trained, fault) -> None:
    """5 % loss, 100 ms each way, or 10 Mbit/s for each host: everybody goes on nevertheless."""

    async def test(rig) -> None:
        fault(rig.network)
        await rig.progress(rig.nodes)

    trained(test)


def test_liars_gain_nothing_by_a_cut(trained) -> None:
    """A server and a worker lie while another of each is cut off: whoever goes on is not misled."""

    async def test(rig) -> None:
        assert {"s4", "w3"} == rig.lying
        rig.network.cut("s0", "w0")
        await rig.stands_still(["w0"], [])

    trained(test, attack="sign-flip")


def test_without_the_liars_nobody_goes_on(trained) -> None:
    """Two more cut off: the correct ones wait, and with the liars alone they take no step."""

    async def test(rig) -> None:
        rig.network.cut("s0", "s1", "w0", "w1")
        async with standing_still(rig, ["s2", "s3"], []):
            await rig.stands_still(["w2"], [])

    trained(test, attack="sign-flip")
