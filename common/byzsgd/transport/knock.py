"""Tries whether a server is there, holds its key and takes ours; nothing is sent but a login."""

import selectors
import socket
import threading
import time
from contextlib import suppress
from enum import StrEnum

import zmq
from zmq.utils.monitor import recv_monitor_message

from byzsgd.cluster import Member
from byzsgd.transport.connection import GREETING_BYTES
from byzsgd.transport.keys import public_of


class Knock(StrEnum):
    """What became of a login."""

    LET_IN = "let in"
    """The server has proved its key, and takes ours."""
    TURNED_AWAY = "turned away"
    """It has the key of the cluster file, and does not take ours: now, or at all."""
    ANOTHER = "another"
    """It has another key than the cluster file says, or is no server of this suite."""
    SILENT = "silent"
    """It took the connection, and did not answer in time."""


def knock(server: Member, secret_key: str, seconds: float) -> Knock:
    """Log in at a server's port for requests, once, and leave.

    Messages of the connections that this identity has are not disturbed: none is sent on this one.

    Args:
        server: Its entry in the cluster file.
        secret_key: Ours.
        seconds: How long to wait for a connection, and then for an answer.

    Raises:
        OSError: If it cannot be reached.
    """
    host, port = server.request_endpoint
    with (
        socket.create_connection((host.strip("[]"), port), seconds) as line,
        socket.create_server(("127.0.0.1", 0)) as door,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.linger = 0
        dealer.reconnect_ivl = -1  # Once is enough.
        dealer.curve_secretkey = secret_key.encode()
        dealer.curve_publickey = public_of(secret_key).encode()
        dealer.curve_serverkey = server.public_key.encode()
        # libzmq ends such a connection without a word of why: how much was said before tells.
        door.settimeout(seconds)
        relay = _Relay(door, line)
        with dealer.get_monitor_socket() as monitor:
            dealer.connect("tcp://{}:{}".format(*door.getsockname()))
            let_in = _is_let_in(monitor, time.monotonic() + seconds)
        dealer.close()
        relay.end()
    if let_in is None:
        return Knock.SILENT
    if let_in:
        return Knock.LET_IN
    return Knock.TURNED_AWAY if relay.heard > GREETING_BYTES else Knock.ANOTHER


def _is_let_in(monitor: "zmq.Socket[bytes]", until: float) -> bool | None:
    """Whether a login succeeds; None if that is not known when time is up."""
    while monitor.poll(max(int((until - time.monotonic()) * 1000), 0)):
        event = recv_monitor_message(monitor)["event"]
        if event != zmq.EVENT_CONNECTED and event != zmq.EVENT_CONNECT_DELAYED:
            return event == zmq.EVENT_HANDSHAKE_SUCCEEDED
    return None


class _Relay:
    """Carries bytes between a client that comes to a door and a server, and counts the server's."""

    def __init__(self, door: socket.socket, line: socket.socket) -> None:
        self.heard = 0
        """Bytes that the server has said."""
        self._door = door
        self._line = line
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait until all is carried; the client has gone, or goes once the server has."""
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError), selectors.DefaultSelector() as selector:
            client, _ = self._door.accept()
            with client:
                selector.register(client, selectors.EVENT_READ, self._line)
                selector.register(self._line, selectors.EVENT_READ, client)
                while all(self._carry(key) for key, _ in selector.select()):
                    pass

    def _carry(self, key: selectors.SelectorKey) -> bool:
        """Carry what is there in one direction; whether there is more to come."""
        source, target = key.fileobj, key.data
        assert isinstance(source, socket.socket)
        part = source.recv(1 << 16)
        if source is self._line:
            self.heard += len(part)
        target.sendall(part)
        return bool(part)
