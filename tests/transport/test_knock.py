"""A knock tells who lets us in, who does not, and who is not whom the cluster file says."""

import asyncio
import socket
from dataclasses import replace

import pytest

from byzsgd.cluster import Member
from byzsgd.messages import Pull
from byzsgd.transport import Knock, keys, knock

SECONDS = 20.0
"""Longer than any answer takes."""


async def tried(net, secret: str, *, public_key: str | None = None) -> Knock:
    """What becomes of a login at s1, by the cluster file or with another key for s1 in it."""
    server = net.cluster.node("s1")
    if public_key:
        server = replace(server, public_key=public_key)
    return await asyncio.to_thread(knock, server, secret, SECONDS)


def test_each_answer_is_told_from_the_others(net) -> None:
    """A node of the file is let in, a stranger turned away; a server may have another key."""

    async def main() -> None:
        async with net.running("s1"):
            for node in ("w1", "s2", "op"):
                assert await tried(net, net.keys[node].secret) is Knock.LET_IN
            stranger = keys.generate().secret
            assert await tried(net, stranger) is Knock.TURNED_AWAY
            wrong = keys.generate().public
            assert await tried(net, net.keys["w1"].secret, public_key=wrong) is Knock.ANOTHER

    asyncio.run(main())


def test_who_is_not_admitted_any_more_is_turned_away(net) -> None:
    """As whoever holds a key that was replaced."""

    async def main() -> None:
        async with net.running("s1", cluster=net.with_key("w1", keys.generate().public)):
            assert await tried(net, net.keys["w1"].secret) is Knock.TURNED_AWAY

    asyncio.run(main())


def test_a_knock_disturbs_no_connection_of_the_same_node(net) -> None:
    """Answers still go to the daemon that runs with that key."""

    async def main() -> None:
        async with net.running("s1") as (s1, at_s1), net.running("w1") as (w1, at_w1):
            await at_w1.wait(lambda: "s1" in at_w1.connected_)
            w1.send(("s1",), Pull(1))
            assert await at_s1.message(Pull) == ("w1", Pull(1))

            assert await tried(net, net.keys["w1"].secret) is Knock.LET_IN

            s1.send(("w1",), Pull(2))
            assert await at_w1.message(Pull) == ("s1", Pull(2))
            assert at_w1.disconnected_ == []

    asyncio.run(main())


def test_nobody_there_is_an_error_of_the_system(net) -> None:
    """Its sentence says what is wrong."""
    with pytest.raises(ConnectionRefusedError):
        knock(net.cluster.node("s1"), net.keys["w1"].secret, SECONDS)


@pytest.fixture
def listener() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def at(net, listener: socket.socket) -> Member:
    """s1, were it behind a listener."""
    address = f"127.0.0.1:{listener.getsockname()[1] - 1}"
    return replace(net.cluster.node("s1"), address=address)


def test_who_takes_connections_and_says_nothing_is_silent(net, listener) -> None:
    """A frozen process: its backlog takes connections."""
    assert knock(at(net, listener), net.keys["w1"].secret, 0.2) is Knock.SILENT


def test_a_server_of_something_else_is_another(net, listener) -> None:
    """It says other words, or hangs up."""

    async def main() -> None:
        for words in (b"HTTP/1.0 400 Bad Request\r\n\r\n", b""):
            tried = asyncio.to_thread(knock, at(net, listener), net.keys["w1"].secret, SECONDS)
            task = asyncio.create_task(tried)
            connection, _ = await asyncio.to_thread(listener.accept)
            with connection:
                connection.sendall(words)
            assert await task is Knock.ANOTHER

    asyncio.run(main())
