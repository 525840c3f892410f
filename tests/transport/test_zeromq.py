"""Transports over real sockets on loopback, and peers that do not play by the rules."""

import asyncio
import gc
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import uvloop
import zmq

from byzsgd.messages import GatherModel, Gradient, Hello, Model, Pull, Reason
from byzsgd.transport import STRANGER, TransportError, keys
from byzsgd.transport.channel import MESSAGES_A_TURN
from byzsgd.wire import Layout, encode

BOOT = b"8 bytes!"
VECTOR = np.float32([1, -2, 0.5])

Main = Callable[[], Coroutine[Any, Any, None]]


def on_asyncio(main: Main) -> None:
    asyncio.run(main())


def on_uvloop(main: Main) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# What nodes say to one another


def test_a_server_that_cannot_be_dialled_yet_is_answered_where_it_was_heard(net) -> None:
    """It has restarted, say: it dials at once, and others dial it again seconds later."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("s2") as (s2, at_s2):
            await at_s1.wait(lambda: "s2" in at_s1.connected_)
            await at_s2.wait(lambda: "s1" in at_s2.connected_)
            s2.send(("s1",), Pull(7))
            assert await at_s1.message(Pull) == ("s2", Pull(7))
            s1._hang_up("s2")
            s1.send(("s2",), Model(8, VECTOR))
            peer, model = await at_s2.message(Model)
            assert (peer, model.step, *model.vector) == ("s1", 8, *VECTOR)
            assert not s1.statistics().dropped

    on_asyncio(main)


def test_what_was_received_is_held_by_nobody_but_the_node(net) -> None:
    """Not until the next message of that peer comes: vectors are large."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("w1") as (w1, at_w1):
            await at_w1.wait(lambda: at_w1.connected_)
            w1.send(("s1",), Gradient(5, VECTOR))
            await at_s1.message(Gradient)
            s1.send(("w1",), Pull(5))
            await at_w1.message(Pull)
            await at_w1.repeat_until(lambda: at_w1.received_, lambda: s1.publish(Model(6, VECTOR)))
            gc.collect()
            held = [each for each in gc.get_objects() if issubclass(type(each), zmq.Frame)]
            assert VECTOR.tobytes() not in [frame.bytes for frame in held]

    on_asyncio(main)


@pytest.mark.parametrize("run", [on_asyncio, on_uvloop])
def test_every_kind_travels_between_those_who_may_say_it(net, run) -> None:
    """Two servers, a worker and an operator hear one another under their own names."""

    async def main() -> None:
        async with (
            net.running("s1") as (s1, at_s1),
            net.running("s2") as (s2, at_s2),
            net.running("w1") as (w1, at_w1),
            net.running("op") as (op, at_op),
        ):
            for recorder in (at_s1, at_s2):
                await recorder.wait(lambda: recorder.connected_)  # noqa: B023
            for recorder in (at_w1, at_op):
                await recorder.wait(lambda: set(recorder.connected_) == {"s1", "s2"})  # noqa: B023

            # All that a worker may want to say at once.
            w1.send(("s1", "s2"), Hello(3, {"seed": b"abcd"}))
            w1.send(("s1", "s2"), Pull(4))
            w1.send(("s1", "s2"), Gradient(5, VECTOR))
            for recorder in (at_s1, at_s2):
                assert await recorder.message(Hello) == ("w1", Hello(3, {"seed": b"abcd"}))
                assert await recorder.message(Pull) == ("w1", Pull(4))
                peer, gradient = await recorder.message(Gradient)
                assert (peer, gradient.step, *gradient.vector) == ("w1", 5, *VECTOR)

            s1.send(("w1",), Hello(6, reply=True))
            s1.send(("w1",), Pull(7))
            s1.send(("w1",), Model(8, VECTOR))
            assert await at_w1.message(Hello) == ("s1", Hello(6, reply=True))
            assert await at_w1.message(Pull) == ("s1", Pull(7))
            peer, model = await at_w1.message(Model)
            assert (peer, model.step, *model.vector) == ("s1", 8, *VECTOR)

            s2.send(("s1",), GatherModel(9, VECTOR))
            s1.send(("s2",), Pull(9))
            s2.send(("s1",), Model(9, VECTOR))
            peer, vote = await at_s1.message(GatherModel)
            assert (peer, vote.step, *vote.vector) == ("s2", 9, *VECTOR)
            assert await at_s2.message(Pull) == ("s1", Pull(9))
            assert (await at_s1.message(Model))[0] == "s2"

            op.send(("s2",), Pull(10))
            assert await at_s2.message(Pull) == ("op", Pull(10))
            s2.send(("op",), Model(11, VECTOR))
            assert (await at_op.message(Model))[0] == "s2"

            await at_w1.repeat_until(
                lambda: ("s2", 12) in [(peer, message.step) for peer, message in at_w1.received_],
                lambda: s2.publish(Model(12, VECTOR)),
            )
            assert not at_op.received_
            for recorder in (at_s1, at_s2, at_w1, at_op):
                assert not recorder.refused_

    run(main)


def test_large_vectors_arrive_whole_and_in_order(net) -> None:
    """Models and gradients of many frames are the same bits, and no message overtakes another."""
    d = 3 * 2**18 + 1
    vector = np.random.default_rng(1).standard_normal(d, dtype=np.float32)

    async def main() -> None:
        async with (
            net.running("s1", d=d) as (s1, at_s1),
            net.running("w1", d=d) as (w1, at_w1),
        ):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            w1.send(("s1",), Gradient(1, vector))
            w1.send(("s1",), Pull(2))
            await at_s1.wait(lambda: len(at_s1.received_) == 2)
            (_, gradient), (_, pull) = at_s1.received_
            assert (gradient.vector == vector).all()
            assert pull == Pull(2)

            s1.send(("w1",), Model(2, vector))
            _, answer = await at_w1.message(Model)
            assert (answer.vector == vector).all()
            await at_w1.repeat_until(lambda: at_w1.received_, lambda: s1.publish(Model(3, vector)))
            assert (at_w1.received_[0][1].vector == vector).all()

    on_asyncio(main)


def test_statistics_count_what_went_through(net) -> None:
    """Messages and bytes by kind and direction, and of each peer its boot and when it was seen."""

    async def main() -> None:
        async with (
            net.running("s1") as (s1, at_s1),
            net.running("w1") as (w1, at_w1),
        ):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            before = w1.statistics()
            w1.send(("s1",), Gradient(1, VECTOR))
            await at_s1.message(Gradient)

            assert not before.messages
            assert w1.statistics().messages == {("gradient", "sent"): 1}
            size = sum(map(len, encode(Gradient(1, VECTOR), BOOT)))
            assert w1.statistics().bytes == {("gradient", "sent"): size}
            assert s1.statistics().bytes == {("gradient", "received"): size}
            assert w1.statistics().connected == {"s1"}
            assert s1.statistics().boot == {"w1": w1.boot}
            assert set(s1.statistics().last_seen) == {"w1"}

    on_asyncio(main)


# Peers that are away, slow, or come back


def test_what_cannot_be_sent_now_is_dropped_and_counted(net) -> None:
    """Sending to peers that are away, or were never heard of, does not block, raise or queue."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            s1.send(("s2", "w1", "op"), Pull(1))
            s1.publish(Model(1, VECTOR))

            assert s1.statistics().dropped == {
                ("s2", "pull"): 1,
                ("w1", "pull"): 1,
                ("op", "pull"): 1,
            }
            async with net.running("s2") as (_, at_s2):
                await at_s1.wait(lambda: at_s1.connected_)
                s1.send(("s2",), Pull(2))
                await at_s2.message(Pull)

                assert not at_s2.received_

    on_asyncio(main)


def test_a_peer_that_does_not_read_costs_a_full_queue_and_no_more(net, outsiders) -> None:
    """What its queue cannot take is dropped at once, and others are still served."""
    d = 2**20
    vector = np.zeros(d, dtype=np.float32)

    async def main() -> None:
        async with (
            net.running("s1", d=d) as (s1, at_s1),
            net.running("w2", d=d) as (w2, at_w2),
        ):
            silent = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            silent.send_multipart(encode(Pull(0), BOOT))
            await at_s1.message(Pull)
            for step in range(30):
                s1.send(("w1",), Model(step, vector))

            assert s1.statistics().dropped["w1", "model"] > 0
            await at_w2.wait(lambda: "s1" in at_w2.connected_)
            w2.send(("s1",), Pull(0))
            await at_s1.message(Pull)
            s1.send(("w2",), Model(0, vector))
            await at_w2.message(Model)

    on_asyncio(main)


def test_a_restarted_server_is_found_again(net) -> None:
    """A worker is told of the loss and of the return, and of another boot; nothing is resent."""

    async def main() -> None:
        async with net.running("w1") as (w1, at_w1):
            async with net.running("s1") as (s1, at_s1):
                await at_w1.wait(lambda: at_w1.connected_ == ["s1"])
                w1.send(("s1",), Pull(1))
                await at_s1.message(Pull)
                s1.send(("w1",), Hello(1))
                await at_w1.message(Hello)
            await at_w1.wait(lambda: at_w1.disconnected_ == ["s1"])
            first_boot = w1.statistics().boot["s1"]
            w1.send(("s1",), Pull(2))

            assert w1.statistics().dropped == {("s1", "pull"): 1}
            assert not w1.statistics().connected
            async with net.running("s1") as (s1, at_s1):
                await at_w1.wait(lambda: at_w1.connected_ == ["s1", "s1"])
                w1.send(("s1",), Pull(3))
                assert await at_s1.message(Pull) == ("w1", Pull(3))
                s1.send(("w1",), Hello(3))
                await at_w1.message(Hello)
                assert w1.statistics().boot["s1"] not in {first_boot}
                await at_w1.repeat_until(
                    lambda: at_w1.received_, lambda: s1.publish(Model(4, VECTOR))
                )

    on_asyncio(main)


def test_a_new_life_has_another_boot(net) -> None:
    """As if the server had restarted, but on the connections that are there."""

    async def main() -> None:
        async with net.running("w1") as (w1, at_w1), net.running("s1") as (s1, at_s1):
            await at_w1.wait(lambda: at_w1.connected_ == ["s1"])
            w1.send(("s1",), Pull(1))
            await at_s1.message(Pull)
            boots = []
            for step in (5, 3):
                s1.send(("w1",), Hello(step))
                await at_w1.message(Hello)
                boots.append(w1.statistics().boot["s1"])
                s1.new_life()
            assert boots[0] != boots[1]
            assert not at_w1.disconnected_

    on_asyncio(main)


# Addresses


@pytest.mark.parametrize("offset", [0, 1], ids=["models", "requests"])
def test_a_port_in_use_is_named(net, offset) -> None:
    """One clear line says who cannot listen where, and nothing is left open."""
    port = net.port("s1") + offset

    async def main() -> None:
        with socket.create_server(("127.0.0.1", port)):
            message = f"s1 cannot listen on tcp://127.0.0.1:{port}: address already in use"
            with pytest.raises(TransportError, match=f"^{message}$") as problem:
                async with net.running("s1"):
                    pass
        assert problem.value.exit_status == 1
        async with net.running("s1"):
            pass

    on_asyncio(main)


def test_an_address_that_is_not_here_is_named(net) -> None:
    """Binding to a host that this machine has not fails as clearly."""

    async def main() -> None:
        transport = net.transport("s1", 3, None)
        transport._bind_host = "192.0.2.1"
        with pytest.raises(TransportError, match=r"^s1 cannot listen on tcp://192\.0\.2\.1:"):
            await transport.open()

    on_asyncio(main)


# Who is who


def test_a_strangers_key_gets_nothing_and_is_counted(net, outsiders) -> None:
    """Whoever is not in the cluster file hears no model, says nothing, and is reported."""

    async def main() -> None:
        async with (
            net.running("s1") as (s1, at_s1),
            net.running("w1") as (_, at_w1),
        ):
            pair = keys.generate()
            dealer = outsiders.dial(zmq.DEALER, "s1", pair)
            subscriber = outsiders.dial(zmq.SUB, "s1", pair)
            dealer.send_multipart(encode(Gradient(0, VECTOR), BOOT))
            await at_s1.wait(lambda: at_s1.refused_)
            await at_w1.repeat_until(
                lambda: at_w1.received_ and s1.statistics().refused[STRANGER, Reason.STRANGER] > 1,
                lambda: s1.publish(Model(0, VECTOR)),
            )

            # Both try again every few seconds, and what they do within one is told once.
            told = (STRANGER, Reason.STRANGER, f"key {pair.public} from 127.0.0.1")
            assert set(at_s1.refused_) == {told}
            assert not at_s1.received_
            assert not dealer.poll(0)
            assert not subscriber.poll(0)

    on_asyncio(main)


def test_who_does_not_encrypt_gets_nothing(net, outsiders) -> None:
    """A connection without CURVE never becomes one; random bytes do not become messages."""

    async def main() -> None:
        async with (
            net.running("s1") as (_, at_s1),
            net.running("w1") as (w1, at_w1),
        ):
            plain = outsiders.socket(zmq.DEALER)
            plain.connect(f"tcp://127.0.0.1:{net.port('s1') + 1}")
            plain.send_multipart(encode(Pull(0), BOOT))
            with socket.create_connection(("127.0.0.1", net.port("s1") + 1)) as junk:
                junk.sendall(np.random.default_rng(1).bytes(1000))
                # Closed by the server, with or without a word: so it has read all of it.
                with junk.makefile("rb") as answer, suppress(ConnectionResetError):
                    answer.read()
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            w1.send(("s1",), Pull(1))
            assert await at_s1.message(Pull) == ("w1", Pull(1))
            assert not at_s1.received_

    on_asyncio(main)


def test_a_server_with_another_key_gets_nothing(net) -> None:
    """A worker that pins another key than the server has does not talk to it, and says so."""
    other = net.with_key("s1", keys.generate().public)

    async def main() -> None:
        async with (
            net.running("s1") as (s1, at_s1),
            net.running("w1", cluster=other) as (w1, at_w1),
        ):
            await at_w1.wait(lambda: at_w1.refused_)
            w1.send(("s1",), Gradient(0, VECTOR))
            s1.publish(Model(0, VECTOR))

            assert at_w1.refused_[0][:2] == ("s1", Reason.STRANGER)
            assert w1.statistics().refused["s1", Reason.STRANGER] >= 1
            assert w1.statistics().dropped == {("s1", "gradient"): 1}
            assert not at_w1.connected_
            assert not at_w1.received_
            assert not at_s1.received_

    on_asyncio(main)


def test_a_claimed_routing_id_means_nothing(net, outsiders) -> None:
    """A worker is its key, whatever routing id it claims, and answers go to its last connection."""

    async def main() -> None:
        async with (
            net.running("s1") as (s1, at_s1),
            net.running("w2") as (w2, at_w2),
        ):
            await at_w2.wait(lambda: "s1" in at_w2.connected_)
            w2.send(("s1",), Pull(1))
            assert await at_s1.message(Pull) == ("w2", Pull(1))
            for claimed in (b"w2", b"s2", b"stranger"):
                liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"], routing_id=claimed)
                liar.send_multipart(encode(Pull(2), BOOT))
                assert await at_s1.message(Pull) == ("w1", Pull(2))
            s1.send(("w1", "w2"), Hello(3))
            assert await at_w2.message(Hello) == ("s1", Hello(3))
            assert liar.poll(30_000)

    on_asyncio(main)


def test_an_operator_may_ask_but_not_listen(net, outsiders) -> None:
    """Its key opens the ROUTER; a SUB with it is turned away from the PUB, and reported."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            dealer = outsiders.dial(zmq.DEALER, "s1", net.keys["op"])
            dealer.send_multipart(encode(Pull(1), BOOT))
            assert await at_s1.message(Pull) == ("op", Pull(1))
            subscriber = outsiders.dial(zmq.SUB, "s1", net.keys["op"])
            await at_s1.wait(lambda: at_s1.refused_)
            s1.publish(Model(0, VECTOR))

            assert at_s1.refused_ == [("op", Reason.WRONG_ROLE, "may not listen to models")]
            assert s1.statistics().refused == {("op", Reason.WRONG_ROLE): 1}
            assert not subscriber.poll(0)

    on_asyncio(main)


# What a peer with a key can send


def test_what_is_no_message_is_refused_by_peer_and_reason(net, outsiders) -> None:
    """Each refusal names its sender, and the next message of that sender is heard."""
    nan = Gradient(1, np.float32([1, np.nan, 3]))
    short = Gradient(1, np.float32([1, 2]))
    sent = {
        Reason.MALFORMED: [b"hello"],
        Reason.VERSION: [encode(Pull(1), BOOT)[0].replace(b"\xa1v\x01", b"\xa1v\x02")],
        Reason.NON_FINITE: encode(nan, BOOT),
        Reason.WRONG_LENGTH: encode(short, BOOT),
    }

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            liar.send_multipart([b"", b"an envelope, as REQ has one"])
            for frames in sent.values():
                liar.send_multipart(frames)
            liar.send_multipart(encode(Pull(9), BOOT))
            assert await at_s1.message(Pull) == ("w1", Pull(9))

            assert [(peer, reason) for peer, reason, _ in at_s1.refused_[1:]] == [
                ("w1", reason) for reason in sent
            ]
            assert s1.statistics().refused == {
                ("w1", Reason.MALFORMED): 2,
                ("w1", Reason.VERSION): 1,
                ("w1", Reason.NON_FINITE): 1,
                ("w1", Reason.WRONG_LENGTH): 1,
            }
            assert not at_s1.received_

    on_asyncio(main)


def test_a_message_of_too_many_frames_is_refused(net, outsiders) -> None:
    """Ten thousand frames are no message, and hold up neither the loop nor the next message."""

    async def main() -> None:
        async with net.running("s1") as (_, at_s1):
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            liar.send_multipart([*encode(Gradient(1, VECTOR), BOOT), *[b""] * 10_000])
            liar.send_multipart(encode(Pull(2), BOOT))
            assert await at_s1.message(Pull) == ("w1", Pull(2))

            detail = f"wrong-length: {Layout(3).frame_count + 1} frames for 3 coordinates"
            assert at_s1.refused_ == [("w1", Reason.WRONG_LENGTH, detail)]

    on_asyncio(main)


def test_a_frame_that_is_too_long_ends_the_connection(net, outsiders) -> None:
    """No frame above the limit is taken in; its sender comes back and is heard."""

    async def main() -> None:
        async with net.running("s1") as (_, at_s1):
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            monitor = outsiders.monitor(liar, zmq.EVENT_DISCONNECTED)
            liar.send(bytes(2**20 + 2**10 + 1))
            assert await asyncio.to_thread(monitor.poll, 30_000)
            liar.send_multipart(encode(Pull(2), BOOT))
            assert await at_s1.message(Pull) == ("w1", Pull(2))
            assert not at_s1.received_

    on_asyncio(main)


def test_a_flood_leaves_the_loop_to_others(net, outsiders) -> None:
    """While one peer's messages never end, everything else on the event loop has its turns."""
    turns = []

    async def main() -> None:
        async with net.running("s1") as (_, at_s1):
            loop = asyncio.get_running_loop()
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            pull = encode(Pull(1), BOOT)

            def take_turn() -> None:
                turns.append(len(at_s1.received_))
                loop.call_soon(take_turn)

            for _ in range(500):
                liar.send_multipart(pull)
            loop.call_soon(take_turn)
            await at_s1.wait(lambda: len(at_s1.received_) == 500)

        progress = np.diff([0, *turns, 500])
        assert progress.max() <= MESSAGES_A_TURN

    on_asyncio(main)


def test_a_lying_server_is_known_by_its_pinned_key(net, outsiders) -> None:
    """A worker refuses other topics and broken models of a server, in that server's name."""

    async def main() -> None:
        publisher = outsiders.socket(zmq.PUB)
        publisher.curve_server = True
        publisher.curve_secretkey = net.keys["s1"].secret.encode()
        publisher.bind(f"tcp://127.0.0.1:{net.port('s1')}")

        def lie() -> None:
            publisher.send_multipart([b"mx", *encode(Model(1, VECTOR), BOOT)])
            publisher.send_multipart([b"m", *encode(Model(1, VECTOR[:2].copy()), BOOT)])
            publisher.send_multipart([b"m"])

        async with net.running("w1") as (w1, at_w1):
            await at_w1.repeat_until(lambda: len(at_w1.refused_) >= 3, lie)

            assert {(peer, reason) for peer, reason, _ in at_w1.refused_} == {
                ("s1", Reason.MALFORMED),
                ("s1", Reason.WRONG_LENGTH),
            }
            assert not at_w1.received_
            assert set(w1.statistics().last_seen) == {"s1"}

    on_asyncio(main)
