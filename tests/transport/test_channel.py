"""One socket on the event loop: nothing is lost, nobody else is kept waiting."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf

import pytest
import uvloop
import zmq

from byzsgd.transport.channel import FRAMES_A_TURN, MESSAGES_A_TURN, Channel

FRAMES_MAX = 3

Test = Callable[["Pair"], Awaitable[None]]


class Pair:
    """A channel that is looked at, and the plain socket at its other end."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: str) -> None:
        socket, self.other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        for end in (socket, self.other):
            end.linger = end.sndhwm = end.rcvhwm = 0
        socket.bind(address)
        self.other.connect(socket.last_endpoint)
        self.taken: list[list[bytes]] = []
        self.errors: list[BaseException] = []
        self.channel = Channel(socket, FRAMES_MAX, self.take, self.errors.append)

    def take(self, frames: list[zmq.Frame]) -> None:
        self.taken.append([frame.bytes for frame in frames])

    async def until(self, condition: Callable[[], object]) -> int:
        """How many turns the event loop had until something was so."""
        turns = 0
        while not condition():
            await asyncio.sleep(0)
            turns += 1
        return turns


@asynccontextmanager
async def pair(address: str) -> AsyncIterator[Pair]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Pair(context, address)
    try:
        yield made
    finally:
        made.channel.close()
        made.other.close(linger=0)
        context.term()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def run(request) -> Callable[..., None]:
    """Runs a test's coroutine with a pair, on both kinds of event loop."""

    async def with_pair(test: Test, address: str) -> None:
        async with asyncio.timeout(60), pair(address) as made:
            await test(made)

    def on_loop(test: Test, address: str = "tcp://127.0.0.1:*") -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(with_pair(test, address))

    return on_loop


def test_no_word_is_missed_whatever_is_sent_meanwhile(run) -> None:
    """Sending takes libzmq's word back that there is something to read: all is read even so."""

    async def main(pair: Pair) -> None:
        def take(frames: list[zmq.Frame]) -> None:
            pair.take(frames)
            for _ in range(3):
                pair.channel.send([b"and"])

        pair.channel._take = take
        pair.channel.begin()
        for number in range(2000):
            pair.other.send(b"%d" % number)
            pair.channel.send([b"so"])
            if number % 7 == 0:
                await asyncio.sleep(0)
            if number % 100 == 0:
                await pair.until(lambda: len(pair.taken) == number + 1)  # noqa: B023
        await pair.until(lambda: len(pair.taken) == 2000)
        assert pair.taken == [[b"%d" % number] for number in range(2000)]

    run(main)


def test_what_came_before_it_began_is_read(run) -> None:
    """A socket says only once that something is there, and it may have said so before."""

    async def main(pair: Pair) -> None:
        pair.other.send(b"early")
        assert pair.channel.socket.poll(60_000)
        assert pair.channel.empty_at < inf
        pair.channel.begin()
        await pair.until(lambda: pair.channel.empty_at == inf)
        assert pair.taken == [[b"early"]]

    run(main)


def test_many_messages_leave_the_loop_to_others(run) -> None:
    """Between two turns of somebody else no more than a few are read."""

    async def main(pair: Pair) -> None:
        for _ in range(50 * MESSAGES_A_TURN):
            pair.other.send(b"")
        pair.channel.begin()
        most = before = 0
        while len(pair.taken) < 50 * MESSAGES_A_TURN:
            await asyncio.sleep(0)
            most, before = max(most, len(pair.taken) - before), len(pair.taken)
        assert most <= MESSAGES_A_TURN

    run(main)


def test_an_overlong_message_is_thrown_away_a_few_frames_a_turn(run) -> None:
    """One frame too many is handed over; and the next message is whole."""

    async def main(pair: Pair) -> None:
        pair.other.send_multipart([b"x"] * 20 * FRAMES_A_TURN)
        pair.other.send_multipart([b"a", b"b"])
        assert pair.channel.socket.poll(60_000)
        pair.channel.begin()
        assert await pair.until(lambda: len(pair.taken) == 2) >= 20
        assert pair.taken == [[b"x"] * (FRAMES_MAX + 1), [b"a", b"b"]]

    run(main)


def test_nothing_is_read_while_it_pauses(run) -> None:
    """What the work came to is told before the next message; and nobody spins meanwhile."""

    async def main(pair: Pair) -> None:
        work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        looks, look = [], pair.channel._look

        def counted() -> int:
            looks.append(look())
            return looks[-1]

        pair.channel._look = counted
        pair.channel.begin()
        pair.channel.pause_for(work, lambda work: pair.taken.append([work.result().encode()]))
        pair.other.send(b"message")
        await pair.until(lambda: looks and looks[-1] & zmq.POLLIN)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(looks) < 10
        assert not pair.taken
        work.set_result("work")
        await pair.until(lambda: len(pair.taken) == 2)
        assert pair.taken == [[b"work"], [b"message"]]

    run(main)


def test_it_was_empty_when_nothing_was_left_to_read(run) -> None:
    """Not when it was told of more: that may have been there for long, if the loop had no turn."""

    async def main(pair: Pair) -> None:
        pair.channel.begin()
        await pair.until(lambda: pair.channel.empty_at == inf)
        before = time.monotonic()
        for _ in range(3 * MESSAGES_A_TURN):
            pair.other.send(b"")
        await pair.until(lambda: pair.taken)
        assert len(pair.taken) < 3 * MESSAGES_A_TURN
        assert pair.channel.empty_at < before
        await pair.until(lambda: len(pair.taken) == 3 * MESSAGES_A_TURN)
        await pair.until(lambda: pair.channel.empty_at == inf)

    run(main, "inproc://at-once")


def test_it_may_be_closed_by_what_it_hands_over(run) -> None:
    """Then nothing more is read, and that is no error."""

    async def main(pair: Pair) -> None:
        def take(frames: list[zmq.Frame]) -> None:
            pair.take(frames)
            pair.channel.close()

        pair.channel._take = take
        for _ in range(3):
            pair.other.send(b"")
        assert pair.channel.socket.poll(60_000)
        pair.channel.begin()
        await pair.until(lambda: pair.taken)
        await asyncio.sleep(0)
        assert (pair.taken, pair.errors) == ([[b""]], [])

    run(main)


def test_a_bug_of_whoever_takes_a_message_is_told(run) -> None:
    """It must end the daemon, and not be a line in a log."""

    async def main(pair: Pair) -> None:
        def take(frames: list[zmq.Frame]) -> None:
            raise ZeroDivisionError

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        pair.channel._take = take
        pair.channel.begin()
        pair.other.send(b"")
        await pair.until(lambda: pair.errors)
        assert isinstance(pair.errors[0], ZeroDivisionError)

    run(main)
