"""Wire types of two bytes over real sockets: who hears what rounded, and what rounding may cost."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.cluster import WireType
from byzsgd.messages import GatherModel, Gradient, Hello, Model, Pull, Reason
from byzsgd.transport import identity_bytes, queue_messages, zeromq
from byzsgd.vectors import Vector
from byzsgd.wire import Layout, encode, halves

HALVES = (WireType.FLOAT16, WireType.BFLOAT16)
D = 3 * 2**18 + 1  # More than one frame, also of two bytes a coordinate.
VECTOR = np.random.default_rng(1).standard_normal(D, dtype=np.float32)

either = pytest.mark.parametrize("half", HALVES)


def on_arrival(half: WireType, buffers: int) -> Vector:
    """What becomes of ``VECTOR`` between a server and a worker."""
    rounded = halves.rounded(VECTOR[: D - buffers], half)
    return np.concatenate([rounded, VECTOR[D - buffers :]])


@pytest.mark.parametrize("buffers", [0, 3 * 2**17 + 2])
@either
def test_what_a_worker_says_or_hears_is_rounded_and_nothing_else(
    net, half: WireType, buffers: int
) -> None:
    """Models to workers and gradients; not buffers, nor votes, servers' and operators' models."""
    cluster = replace(net.cluster, wire_type=half)
    rounded = on_arrival(half, buffers)

    async def main() -> None:
        async with (
            net.running("s1", d=D, cluster=cluster, buffers=buffers) as (s1, at_s1),
            net.running("s2", d=D, cluster=cluster, buffers=buffers) as (s2, at_s2),
            net.running("w1", d=D, cluster=cluster, buffers=buffers) as (w1, at_w1),
            net.running("op", d=D, cluster=cluster) as (op, at_op),
        ):
            for recorder in (at_w1, at_op):
                await recorder.wait(lambda: set(recorder.connected_) == {"s1", "s2"})  # noqa: B023
            await at_s2.wait(lambda: at_s2.connected_)
            w1.send(("s1", "s2"), Gradient(1, VECTOR))
            for recorder in (at_s1, at_s2):
                assert ((await recorder.message(Gradient))[1].vector == rounded).all()
            s1.send(("w1",), Model(2, VECTOR))
            assert ((await at_w1.message(Model))[1].vector == rounded).all()
            await at_w1.repeat_until(lambda: at_w1.received_, lambda: s1.publish(Model(3, VECTOR)))
            assert (at_w1.received_[0][1].vector == rounded).all()
            s2.send(("s1",), GatherModel(4, VECTOR))
            assert ((await at_s1.message(GatherModel))[1].vector == VECTOR).all()
            s2.send(("s1",), Model(5, VECTOR))
            assert ((await at_s1.message(Model))[1].vector == VECTOR).all()
            op.send(("s1",), Pull(6))
            await at_s1.message(Pull)
            # One message to both: each hears its own type of it.
            s1.send(("op", "w1"), Model(7, VECTOR))
            assert ((await at_op.message(Model))[1].vector == VECTOR).all()
            await at_w1.wait(lambda: 7 in [message.step for _, message in at_w1.received_])
            assert (at_w1.received_[-1][1].vector == rounded).all()

            layout = Layout(D, half, buffers)
            size = sum(map(len, encode(Gradient(1, VECTOR), w1.boot, layout)))
            assert size < 2 * D + 2 * buffers + 100
            assert w1.statistics().bytes["gradient", "sent"] == 2 * size
            assert s1.statistics().bytes["gradient", "received"] == size
            for recorder in (at_s1, at_s2, at_w1, at_op):
                assert not recorder.refused_

    asyncio.run(main())


def test_a_node_with_another_wire_type_is_refused_by_name(net) -> None:
    """Its vectors have another length; and a hello says which key of the file differs."""
    other = replace(net.cluster, wire_type=WireType.BFLOAT16)

    async def main() -> None:
        async with (
            net.running("s1") as (_, at_s1),
            net.running("w1", cluster=other) as (w1, at_w1),
        ):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            w1.send(("s1",), Hello(0, other.digests()))
            w1.send(("s1",), Gradient(1, np.float32([1, 2, 3])))

            _, hello = await at_s1.message(Hello)
            await at_s1.wait(lambda: at_s1.refused_)
            mine = net.cluster.digests()
            assert [key for key in mine if mine[key] != hello.digests[key]] == ["wire_type"]
            assert at_s1.refused_[0][:2] == ("w1", Reason.WRONG_LENGTH)

    asyncio.run(main())


def test_a_node_that_counts_other_buffers_is_refused_with_both_lengths(net) -> None:
    """Of the same file, but of other code, say: neither takes a half for part of a float32."""
    cluster = replace(net.cluster, wire_type=WireType.BFLOAT16)

    async def main() -> None:
        async with (
            net.running("s1", cluster=cluster, buffers=1) as (s1, at_s1),
            net.running("w1", cluster=cluster) as (w1, at_w1),
        ):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            w1.send(("s1",), Gradient(1, np.float32([1, 2, 3])))
            await at_s1.wait(lambda: at_s1.refused_)
            s1.send(("w1",), Model(1, np.float32([1, 2, 3])))
            await at_w1.wait(lambda: at_w1.refused_)

            why = "6 bytes, not the 8 of 3 coordinates, 1 of them buffers"
            assert at_s1.refused_ == [("w1", Reason.WRONG_LENGTH, f"wrong-length: {why}")]
            why = "8 bytes, not the 6 of 3 coordinates"
            assert at_w1.refused_ == [("s1", Reason.WRONG_LENGTH, f"wrong-length: {why}")]

    asyncio.run(main())


@either
def test_a_message_is_rounded_once_however_often_it_is_pulled(
    net, half: WireType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A liar's pulls cost no more than they do without; a new life has its boot id on all."""
    encoded: list[int] = []

    def counting(message, *words):
        encoded.append(message.step)
        return encode(message, *words)

    monkeypatch.setattr(zeromq, "encode", counting)
    cluster = replace(net.cluster, wire_type=half)

    async def main() -> None:
        async with (
            net.running("s1", cluster=cluster) as (s1, at_s1),
            net.running("w1", cluster=cluster) as (w1, at_w1),
        ):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            kept = [Gradient(step, np.float32([step, 2, 3])) for step in (1, 2)]
            for _ in range(3):
                for gradient in kept:
                    w1.send(("s1",), gradient)
                    assert (await at_s1.message(Gradient))[1].step == gradient.step
            assert encoded == [1, 2]
            old = w1.boot
            w1.new_life()
            w1.send(("s1",), kept[0])
            await at_s1.message(Gradient)
            assert encoded == [1, 2, 1]
            assert s1.statistics().boot["w1"] == w1.boot != old
            del kept, gradient
            assert not w1._rounded

    asyncio.run(main())


@either
def test_a_worker_has_room_for_half_as_many_bytes(net, half: WireType) -> None:
    """What others may have sent to it counts as it travels; among servers that is float32."""
    cluster = replace(net.cluster, wire_type=half)
    d, queue = 1_000_000, queue_messages(1_000_000)
    for buffers in (0, 1000):
        budgets = {
            identity: net.transport(identity, d, None, cluster, buffers)._budget
            for identity in ("s1", "w1", "op")
        }

        assert budgets["w1"] == identity_bytes(Layout(d, half, buffers), queue)
        assert budgets["s1"] == budgets["op"] == identity_bytes(Layout(d), queue)
        assert budgets["w1"] < 0.6 * budgets["s1"]
