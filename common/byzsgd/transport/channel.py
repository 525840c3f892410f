"""A ZeroMQ socket on the event loop: what comes is handed over at once, what goes never waits.

It does the work of ``zmq.asyncio`` with a callback a message, and not with futures and tasks, which
took a node with a small model a fifth of its time.

libzmq says by a descriptor that something *may* have happened to a socket, and says it once: the
next look at the socket, as every send is one, takes the word back. So:

1. Told of something, a channel reads until nothing is there, or looks again in its next turn.
2. After a send it looks whether something is there.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import TypeVar, cast

import zmq

MESSAGES_A_TURN = 8
"""Messages that are read before everybody else on the event loop has a turn."""

FRAMES_A_TURN = 1000
"""The same in frames: those of an overlong message are thrown away."""

# As plain numbers: what enum.IntFlag makes of | and & takes longer than a call of libzmq.
EVENTS = int(zmq.EVENTS)
READABLE = int(zmq.POLLIN)
NOT_WAITING = int(zmq.DONTWAIT)
MORE_FOLLOWS = int(zmq.DONTWAIT | zmq.SNDMORE)

T = TypeVar("T")


class Channel:
    """One socket: reads whole messages and hands them over, sends without waiting."""

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        frames_max: int,
        take: Callable[[list[zmq.Frame]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Prepare; nothing is read before ``begin``.

        Args:
            socket: Belongs to the channel from here on.
            frames_max: Frames of a message; of one with more, one more is handed over.
            take: Told of every message, frame by frame.
            failed: Told what ``take`` raised.
        """
        self.socket = socket
        self.empty_at = time.monotonic()
        """When the socket was last seen empty, on the clock; inf while it says nothing."""
        self._emptied_at = self.empty_at
        self._frames_max = frames_max
        self._take = take
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        self._frames: list[zmq.Frame] = []
        self._turn: asyncio.Handle | None = None
        self._pauses = False

    def begin(self) -> None:
        """Read from now on."""
        assert self._descriptor is None, "begun before"
        self._descriptor = descriptor = cast(int, self.socket.get(zmq.FD))
        self._loop.add_reader(descriptor, self._told)
        self._soon()

    def stop(self) -> None:
        """Read no more."""
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def close(self) -> None:
        """Give the socket back, at once: what is still on its way is lost.

        Its connections must have ended: if one ends while the socket is being closed, and half of a
        message was sent through it, libzmq looks for the other half, which is thrown away already,
        and ends the process (4.3.5, ``session_base.cpp:233``).
        """
        self.stop()
        self.socket.close(linger=0)

    def send(self, frames: Sequence[bytes | zmq.Frame]) -> bool:
        """Whether a message could be put into the socket's queue, whole, without waiting.

        libzmq looks at the queue's limit for a first frame alone, so a message goes in whole or not
        at all. If the connection breaks in the middle, it drops the rest, and on a DEALER possibly
        the next message, but it never glues two together.
        """
        # A send looks at the state of connections once in a millisecond at most; asking for events
        # makes it look now, or a peer that has connected this instant would count as away.
        self._look()
        *first, last = frames
        try:
            for frame in first:
                self.socket.send(frame, MORE_FOLLOWS, copy=False)
            self.socket.send(last, NOT_WAITING, copy=False)
        except zmq.ZMQError as error:
            # EAGAIN: the peer is slow, or not there yet. EHOSTUNREACH: it is gone.
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        finally:
            if self._look() & READABLE:
                self._soon()
        return True

    def pause_for(
        self, work: "asyncio.Future[T]", then: Callable[["asyncio.Future[T]"], None]
    ) -> None:
        """Read no more until a piece of work is done; ``then`` comes before the next message."""
        self._pauses = True

        def done(work: "asyncio.Future[T]") -> None:
            self._pauses = False
            self._guarded(lambda: then(work))
            self._soon()

        work.add_done_callback(done)

    def _look(self) -> int:
        """What may be done with the socket now: flags of zmq's."""
        return cast(int, self.socket.get(EVENTS))

    def _told(self) -> None:
        if self._pauses:
            self._look()  # Takes the word back: else it would be said for ever.
        else:
            self._guarded(self._read)

    def _soon(self) -> None:
        """Look once more, after everybody else on the event loop."""
        if self._descriptor is not None and self._turn is None:
            self._turn = self._loop.call_soon(self._guarded, self._read)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:
            self._failed(error)
            raise

    def _read(self) -> None:
        """Hand over what is there, for one turn."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self.empty_at = self._emptied_at
        messages = 0
        for _ in range(FRAMES_A_TURN):
            # Closed or paused by what was told of the last message.
            if self._descriptor is None or self._pauses:
                return
            if messages == MESSAGES_A_TURN:
                break
            try:
                frame = self.socket.recv(NOT_WAITING, copy=False)
            except zmq.Again:
                self._emptied_at, self.empty_at = time.monotonic(), inf
                return
            # One frame too many is kept, so that the message is refused for it.
            if len(self._frames) <= self._frames_max:
                self._frames.append(frame)
            if not frame.more:
                frames, self._frames = self._frames, []
                messages += 1
                self._take(frames)
        self._soon()
