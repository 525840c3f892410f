"""A TCP connection of libzmq's, seen through a second file descriptor: counted, and cut.

libzmq tells only the number of its descriptor, in an event that may come late. So the number is
used once, to make a duplicate, which is looked at before it is believed: should libzmq have closed
its own meanwhile, and the system given the number away again, the duplicate is somebody else's.
Cutting is ``shutdown`` on the duplicate: libzmq reads the end of the stream and tidies up. To
close *its* descriptor would crash it.
"""

import array
import fcntl
import os
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Self

SUPPORTED = sys.platform == "linux"
"""Whether connections can be watched here: it takes Linux's TCP_INFO."""

GREETING_BYTES = 64
WELCOME_BYTES = 170
"""What a server says to a stranger: ZMTP's greeting, and CURVE's answer to a hello. It says more
only once the stranger's key was let in."""

_TCP_INFO_BYTES = 256
# Offsets in <linux/tcp.h>'s struct tcp_info, which only ever grows at its end.
_BYTES_ACKED_AND_RECEIVED = struct.Struct("=QQ")
_BYTES_ACKED_AT = 120


class Connection:
    """One connection, from when libzmq has made it until it is gone."""

    __slots__ = ("_socket", "address", "credit", "fd", "logged_in", "peer", "received", "since")

    def __init__(self, duplicate: socket.socket, fd: int, address: str, now: float) -> None:
        self._socket = duplicate
        self.fd = fd
        """libzmq's number of it, which its messages carry as well."""
        self.address = address
        """Of the other end, without a port."""
        self.since = now
        """When it was made, and later: when it last delivered a whole message."""
        self.logged_in = False
        self.peer: str | None = None
        """Whose key it was opened with, once that is known."""
        self.received = 0
        """Bytes that have come so far."""
        self.credit = 0.0
        """Bytes of it that are accounted for; never more than were received."""

    @classmethod
    def take(cls, fd: int, ports: tuple[int, int], now: float) -> Self | None:
        """The connection of a descriptor, or None where it is gone already.

        Args:
            fd: libzmq's descriptor.
            ports: The own and the other end's port that it must have; 0 for any.
            now: The time.
        """
        try:
            number = os.dup(fd)
        except OSError:
            return None
        try:
            duplicate = socket.socket(fileno=number)
        except OSError:  # A file, say.
            os.close(number)
            return None
        try:
            own, other = duplicate.getsockname(), duplicate.getpeername()
            if all(want in (0, end[1]) for want, end in zip(ports, (own, other), strict=True)):
                return cls(duplicate, fd, other[0], now)
        except (OSError, IndexError, TypeError):  # Not connected, or no TCP at all.
            pass
        duplicate.close()
        return None

    def look(self) -> None:
        """See what has come since, and whether the other end has logged in."""
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        acked, self.received = _BYTES_ACKED_AND_RECEIVED.unpack_from(info, _BYTES_ACKED_AT)
        # What was sent would not do: who acknowledges nothing makes the kernel send it again. One
        # byte more, as the kernel may count the connection's first packet.
        self.logged_in = self.logged_in or acked > GREETING_BYTES + WELCOME_BYTES + 1
        self.credit = min(self.credit, self.received)

    @property
    def undelivered(self) -> float:
        """Bytes that came and belong to no message that was delivered, some in the kernel."""
        return self.received - self.credit

    def held(self) -> float:
        """Bytes that came, belong to no message that was delivered, and have left the kernel."""
        unread = array.array("i", [0])
        try:
            fcntl.ioctl(self._socket.fileno(), termios.FIONREAD, unread)
        except OSError:
            return 0.0
        return self.undelivered - unread[0]

    def cut(self) -> None:
        """End the connection: both sides read the end of the stream."""
        with suppress(OSError):  # It has ended by itself.
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it; where libzmq has closed its own descriptor, it ends."""
        self._socket.close()
