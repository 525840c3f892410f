"""Identity under attack, on real sockets: no vote counts that its key's owner did not cast."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import zmq
from tests.transport.watching import connections, until

from byzsgd.messages import GatherModel, Gradient, Hello, Model, Pull, Reason
from byzsgd.protocol import Aggregate, Effect, Received, Refuse, server_of
from byzsgd.transport import CONNECTIONS_MAX, STRANGER, keys
from byzsgd.transport.zap import LOGINS_BURST, Doorkeeper
from byzsgd.transport.zeromq import TOPIC
from byzsgd.wire import encode

BOOT, EARLIER_BOOT = b"8 bytes!", b"earlier."
VECTOR = np.float32([1, -2, 0.5])
LIE = np.float32([900, 900, 900])


def test_no_field_of_a_message_says_who_sent_it(net, outsiders) -> None:
    """A header that names somebody else is no message; it is refused under its key's name."""
    claims = [
        encode(Pull(1), BOOT)[0].replace(b"\x84", b"\x85") + b"\xa4from\xa2w2",
        encode(Pull(1), BOOT)[0].replace(b"\x84", b"\x85") + b"\xa2id\xa2w2",
    ]
    assert all(claim[:1] == b"\x85" for claim in claims)

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"], routing_id=b"w2")
            for claim in claims:
                liar.send(claim)
            liar.send_multipart(encode(Pull(9), BOOT))
            assert await at_s1.message(Pull) == ("w1", Pull(9))
            assert s1.statistics().refused == {("w1", Reason.MALFORMED): len(claims)}
            assert not at_s1.received_

    asyncio.run(main())


def test_two_connections_of_one_key_are_both_heard(net, outsiders) -> None:
    """Neither mutes the other, and both are the same peer, also when one goes."""

    async def main() -> None:
        async with net.running("s1") as (_, at_s1):
            one, two = (outsiders.dial(zmq.DEALER, "s1", net.keys["w1"]) for _ in range(2))
            for step in range(3):
                for socket in (one, two):
                    socket.send_multipart(encode(Pull(step), BOOT))
                    assert await at_s1.message(Pull) == ("w1", Pull(step))
            one.close()
            two.send_multipart(encode(Pull(9), BOOT))
            assert await at_s1.message(Pull) == ("w1", Pull(9))

    asyncio.run(main())


def test_another_peers_routing_id_takes_over_nothing(net, outsiders) -> None:
    """Answers for a peer go to it, also when somebody else claims the routing id that it has."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            owner = outsiders.dial(zmq.DEALER, "s1", net.keys["w2"], routing_id=b"mine")
            owner.send_multipart(encode(Pull(1), BOOT))
            assert await at_s1.message(Pull) == ("w2", Pull(1))
            thief = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"], routing_id=b"mine")
            monitor = outsiders.monitor(thief, zmq.EVENT_HANDSHAKE_SUCCEEDED)
            assert await asyncio.to_thread(monitor.poll, 30_000)
            thief.send_multipart(encode(Pull(2), BOOT))
            owner.send_multipart(encode(Pull(3), BOOT))
            assert await at_s1.message(Pull) == ("w2", Pull(3))
            s1.send(("w2",), Hello(4))
            assert await asyncio.to_thread(owner.poll, 30_000)
            assert not thief.poll(0)

    asyncio.run(main())


def test_routing_ids_that_libzmq_would_give_itself_cannot_be_collected(net, outsiders) -> None:
    """A server has few connections of one key at a time, and lets it in seldom.

    libzmq aborts when it gives a connection an id that another one has claimed; they are numbers
    of 32 bits that begin anywhere. Many would have to be held, with many logins meanwhile.
    """

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            for number in range(3 * LOGINS_BURST):
                forged = b"\0" + number.to_bytes(4, "big")
                liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"], routing_id=forged)
                liar.send_multipart(encode(Pull(number), BOOT))
            await at_s1.wait(
                lambda: (
                    ("w1", Reason.THROTTLED) in s1.statistics().refused
                    and ("w1", Reason.FLOOD) in s1.statistics().refused
                )
            )
            # All that are let in, once the guard has looked again.
            await until(lambda: sum(each.logged_in for each in connections(s1)) <= CONNECTIONS_MAX)

    asyncio.run(main())


def test_without_a_zap_handler_nobody_is_let_in(net, monkeypatch) -> None:
    """A doorkeeper that has ended leaves the door shut."""
    monkeypatch.setattr(Doorkeeper, "_run", lambda self: self._socket.close())

    async def main() -> None:
        async with net.running("s1") as (_, at_s1), net.running("w1") as (w1, at_w1):
            await at_w1.wait(lambda: any(peer == "s1" for peer, _, _ in at_w1.refused_))
            w1.send(("s1",), Gradient(0, VECTOR))
            assert not at_w1.connected_
            assert not at_s1.received_

    asyncio.run(main())


@pytest.mark.parametrize("how", ["another key", "not admitted"])
def test_a_key_off_the_roster_counts_no_more_from_that_instant(net, outsiders, how) -> None:
    """What has come already is refused, the connection is cut, and another peer's stays."""
    without = net.with_key("w1", keys.generate().public)
    if how == "not admitted":
        without = _admitting(net.cluster, "w1", False)

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("w2") as (w2, at_w2):
            old = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            monitor = outsiders.monitor(old, zmq.EVENT_DISCONNECTED)
            old.send_multipart(encode(Pull(1), BOOT))
            assert await at_s1.message(Pull) == ("w1", Pull(1))
            await at_w2.wait(lambda: "s1" in at_w2.connected_)

            old.send_multipart(encode(Gradient(2, VECTOR), BOOT))
            assert s1._router  # The gradient waits in libzmq: the loop has no turn.
            _wait_until_readable(s1)
            assert s1.admit(without) == {"w1"}
            await at_s1.wait(lambda: at_s1.refused_)

            assert at_s1.refused_[0][:2] == ("w1", Reason.NOT_ADMITTED)
            assert await asyncio.to_thread(monitor.poll, 30_000)
            s1.send(("w1",), Model(3, VECTOR))
            assert s1.statistics().dropped == {("w1", "model"): 1}
            w2.send(("s1",), Pull(4))
            assert await at_s1.message(Pull) == ("w2", Pull(4))
            assert not at_s1.received_
            assert not at_w2.disconnected_

    asyncio.run(main())


def test_every_subscriber_with_a_key_off_the_roster_is_cut(net, outsiders) -> None:
    """Also those that were not the first to subscribe, and came together with another peer's."""
    without = _admitting(net.cluster, "w1", False)

    async def main() -> None:
        async with net.running("s1") as (s1, _):
            w1s, w2s = zip(
                *(
                    [outsiders.dial(zmq.SUB, "s1", net.keys[w], topic=TOPIC) for w in ("w1", "w2")]
                    for _ in range(4)
                ),
                strict=True,
            )
            await until(lambda: [c.peer for c in connections(s1)].count("w1") == len(w1s))
            await until(lambda: [c.peer for c in connections(s1)].count("w2") == len(w2s))
            s1.admit(without)
            await until(lambda: {c.peer for c in connections(s1) if c.logged_in} == {"w2"})
            s1.publish(Model(1, VECTOR))
            for subscriber in w2s:
                assert await asyncio.to_thread(subscriber.poll, 30_000)
            assert not any(subscriber.poll(0) for subscriber in w1s)

    asyncio.run(main())


def test_no_subscription_hides_behind_another_peers(net, outsiders) -> None:
    """A second one to the same topic, which must not be, is refused like the first."""

    async def main() -> None:
        async with net.running("s1") as (_, at_s1):
            for worker in ("w1", "w2"):
                outsiders.dial(zmq.SUB, "s1", net.keys[worker], topic=b"other")
            await at_s1.wait(
                lambda: (
                    {("w1", Reason.MALFORMED), ("w2", Reason.MALFORMED)}
                    <= {(who, why) for who, why, _ in at_s1.refused_}
                )
            )

    asyncio.run(main())


def test_a_peer_that_is_put_back_returns_by_itself(net) -> None:
    """It is told to come later, not never: its own process dials again, and is heard."""
    without = _admitting(net.cluster, "w1", False)

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("w1") as (w1, at_w1):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            s1.admit(without)
            await at_w1.wait(lambda: "s1" in at_w1.disconnected_)
            await at_s1.wait(lambda: at_s1.refused_)
            assert at_s1.refused_[0][:2] == ("w1", Reason.NOT_ADMITTED)

            s1.admit(net.cluster)
            await at_w1.wait(lambda: at_w1.connected_.count("s1") == 2)
            w1.send(("s1",), Pull(1))
            assert await at_s1.message(Pull) == ("w1", Pull(1))
            await at_w1.repeat_until(lambda: at_w1.received_, lambda: s1.publish(Model(2, VECTOR)))

    asyncio.run(main())


def test_a_server_with_a_new_key_is_dialled_again(net) -> None:
    """A worker that is told of the new key finds the restarted server, and not before."""
    pair = keys.generate()
    changed = net.with_key("s1", pair.public)

    async def main() -> None:
        async with net.running("w1") as (w1, at_w1):
            async with net.running("s1"):
                await at_w1.wait(lambda: "s1" in at_w1.connected_)
            net.keys["s1"] = pair
            async with net.running("s1", cluster=changed) as (s1, at_s1):
                await at_w1.wait(lambda: at_w1.refused_)
                assert at_w1.refused_[0][:2] == ("s1", Reason.STRANGER)
                assert w1.admit(changed) == {"s1"}
                await at_w1.wait(lambda: at_w1.connected_.count("s1") == 2)
                w1.send(("s1",), Pull(1))
                assert await at_s1.message(Pull) == ("w1", Pull(1))
                await at_w1.repeat_until(
                    lambda: at_w1.received_, lambda: s1.publish(Model(2, VECTOR))
                )

    asyncio.run(main())


def test_of_all_these_attacks_no_vote_counts(net, outsiders) -> None:
    """A server's update is of the first votes of the keys' owners, and of nothing else."""
    server = server_of(net.cluster, "s1", VECTOR)
    effects: list[Effect] = list(server.start(0.0))

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1):
            loop = asyncio.get_running_loop()
            at_s1.received = lambda peer, message: (
                effects.extend(server.handle(Received(peer, message), loop.time())),
                at_s1.received_.append((peer, message)),
                at_s1.changed.set(),
            )
            stranger = outsiders.dial(zmq.DEALER, "s1", keys.generate())
            stranger.send_multipart(encode(Gradient(0, LIE), BOOT))
            liar = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"], routing_id=b"w2")
            second = outsiders.dial(zmq.DEALER, "s1", net.keys["w1"])
            operator = outsiders.dial(zmq.DEALER, "s1", net.keys["op"], routing_id=b"w1")
            peer_server = outsiders.dial(zmq.DEALER, "s1", net.keys["s2"], routing_id=b"s1")
            # One vote of its own, and then everything that it has no right to.
            liar.send_multipart(encode(Gradient(0, VECTOR), BOOT))
            await at_s1.message(Gradient)
            said = [
                (second, Gradient(0, LIE), BOOT),  # Another vote, through another connection.
                (liar, Gradient(0, VECTOR), EARLIER_BOOT),  # The same vote, as in another life.
                (liar, Gradient(0, VECTOR), BOOT),  # A recorded message, again.
                (liar, GatherModel(0, LIE), BOOT),
                (liar, Model(0, LIE), BOOT),
                (operator, Gradient(0, LIE), BOOT),
                (operator, GatherModel(0, LIE), BOOT),
                (peer_server, Gradient(0, LIE), BOOT),
            ]
            for socket, message, boot in said:
                socket.send_multipart(encode(message, boot))
            await at_s1.wait(
                lambda: (
                    len(at_s1.received_) == len(said)
                    and s1.statistics().refused[STRANGER, Reason.STRANGER] > 0
                )
            )
            assert not [effect for effect in effects if isinstance(effect, Aggregate)]
            refused = [(e.peer, e.reason) for e in effects if isinstance(e, Refuse)]
            assert sorted(refused) == sorted(
                [
                    ("w1", Reason.EQUIVOCATION),
                    ("w1", Reason.DUPLICATE),
                    ("w1", Reason.DUPLICATE),
                    ("w1", Reason.WRONG_ROLE),
                    ("w1", Reason.WRONG_ROLE),
                    ("op", Reason.WRONG_ROLE),
                    ("op", Reason.WRONG_ROLE),
                    ("s2", Reason.WRONG_ROLE),
                ]
            )

            async with net.running("w2") as (w2, at_w2):
                await at_w2.wait(lambda: "s1" in at_w2.connected_)
                w2.send(("s1",), Gradient(0, 3 * VECTOR))
                await at_s1.wait(lambda: len(at_s1.received_) == len(said) + 1)
            [aggregate] = [effect for effect in effects if isinstance(effect, Aggregate)]
            assert [vector.tolist() for vector in aggregate.vectors] == [
                VECTOR.tolist(),
                (3 * VECTOR).tolist(),
            ]

    asyncio.run(main())


def _admitting(cluster, identity: str, admitted: bool):
    nodes = tuple(
        replace(node, admitted=admitted) if node.id == identity else node for node in cluster.nodes
    )
    return replace(cluster, nodes=nodes)


def _wait_until_readable(transport) -> None:
    """Wait, without giving the event loop a turn, until a message lies in the ROUTER's queue."""
    router = zmq.Socket.shadow(transport._router.socket.underlying)
    assert router.poll(30_000)
    # Whoever looks takes the sign away that there is something: give the loop another one.
    transport._router.socket.get(zmq.EVENTS)
