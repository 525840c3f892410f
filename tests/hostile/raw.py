"""Connections by hand, without ZeroMQ: what anybody can do who reaches a port."""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from tests.hostile.field import Field

Address = tuple[str, int]

MIB = 1 << 20

OPEN_MAX = 400
"""Connections that one attack keeps open."""


def greeting(mechanism: bytes = b"CURVE", version: bytes = b"\x03\x01") -> bytes:
    """The 64 bytes that begin a ZMTP connection."""
    return b"\xff" + bytes(8) + b"\x7f" + version + mechanism.ljust(20, b"\0") + bytes(32)


def command(name: bytes, body: bytes) -> bytes:
    """A ZMTP command in a frame of its own."""
    content = bytes([len(name)]) + name + body
    if len(content) < 256:
        return b"\x04" + bytes([len(content)]) + content
    return b"\x06" + len(content).to_bytes(8) + content


def hello() -> bytes:
    """A CURVE HELLO of the right length whose box cannot be opened."""
    return command(b"HELLO", b"\x01\x00" + bytes(72) + os.urandom(32 + 8 + 80))


def openings() -> Iterator[bytes]:
    """What a stranger may begin with: each line another state of a login, or none at all."""
    yield b""
    yield os.urandom(random.randrange(1, 65536))
    yield bytes(4096)
    yield b"\xff" * 4096
    yield b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)  # TLS
    yield b"\x01\x00" + b"\x06\x00hello" * 500  # ZMTP/1.0: an empty identity, then messages.
    yield greeting()[:1]
    yield greeting()[:11]
    yield greeting()[:63]
    yield greeting()
    yield greeting(b"NULL") + command(b"READY", b"")
    yield greeting(b"PLAIN") + command(b"HELLO", b"\x05admin\x05admin")
    yield greeting(b"X" * 20)
    yield greeting(version=b"\x09\x09")
    yield greeting() + hello()[:40]
    yield greeting() + hello()
    yield greeting() + hello() + os.urandom(1000)
    yield greeting() + command(b"INITIATE", os.urandom(257))
    yield greeting() + command(b"READY", b"")
    yield greeting() + b"\x00\x05early"  # A message before the login.
    yield greeting() + b"\x04\x00"
    yield greeting() + b"\x06" + (2**63 - 1).to_bytes(8)
    yield greeting() + b"\x02" + (2**64 - 1).to_bytes(8) + b"x"
    yield greeting() + b"\x02" + (2**31).to_bytes(8) + b"x"


def large_command() -> bytes:
    """A login whose first command is as long as a frame may be, and lacks its last byte."""
    return greeting() + b"\x06" + MIB.to_bytes(8) + b"\x05HELLO" + bytes(MIB - 7)


def crowd(
    field: Field,
    addresses: Sequence[Address],
    openings: Callable[[], Iterator[bytes]],
    *,
    open_max: int = OPEN_MAX,
    per_second: float = 400.0,
    drip: bytes = b"",
    source: str = "",
) -> None:
    """Connect again and again, say an opening, and keep the connection.

    Args:
        field: Says when it is over.
        addresses: Dialled in turn.
        openings: What connections begin with, in turn.
        open_max: Connections that are open at once; above it the oldest are closed.
        per_second: New connections.
        drip: Sent to every connection once a second, as those do that want to look alive.
        source: The own address, where it matters which.
    """
    connections: list[tuple[socket.socket, bytes]] = []
    dripped = time.monotonic()
    words = openings()
    while not field.is_over():
        opening = next(words, None)
        if opening is None:
            words = openings()
            continue
        connection = socket.socket()
        connection.setblocking(False)
        if source:
            connection.bind((source, 0))
        connection.connect_ex(addresses[field.sent % len(addresses)])
        connections.append((connection, opening))
        field.sent += 1
        field.pace(per_second)
        connections = _pushed(connections[-open_max:], connections[:-open_max])
        if drip and time.monotonic() - dripped >= 1:
            dripped = time.monotonic()
            connections = [(each, rest + drip) for each, rest in connections]
    for connection, _ in connections:
        connection.close()


def _pushed(
    kept: list[tuple[socket.socket, bytes]], gone: list[tuple[socket.socket, bytes]]
) -> list[tuple[socket.socket, bytes]]:
    """Send as much of every opening as can be sent now; close those that are gone or broken."""
    for connection, _ in gone:
        connection.close()
    still = []
    for connection, rest in kept:
        try:
            if rest:
                rest = rest[connection.send(rest) :]
        except BlockingIOError:
            pass
        except OSError:
            connection.close()
            continue
        still.append((connection, rest))
    return still


def listen(field: Field, address: Address) -> None:
    """Stand where a server should be, and answer everybody who dials with nonsense."""
    connections: list[socket.socket] = []
    words = openings()
    with socket.create_server(address, backlog=1024) as listener:
        listener.settimeout(0.1)
        while not field.is_over():
            with suppress(OSError):
                connection, _ = listener.accept()
                connections.append(connection)
                field.sent += 1
                opening = next(words, None)
                if opening is None:
                    words, opening = openings(), large_command()
                connection.setblocking(False)
                connection.send(opening)
            for old in connections[:-OPEN_MAX]:
                old.close()
            connections = connections[-OPEN_MAX:]
    for connection in connections:
        connection.close()
