"""The guard: bounds what peers can make libzmq hold, in bytes and in connections.

libzmq's own limits count whole messages and single frames. Beyond them a peer can send a message
that never ends, subscribe to a hundred thousand topics, or connect and not log in. So a thread
looks at every connection 50 times a second: what came (the kernel counts it), less what was
delivered, is what libzmq holds of it. Whoever is over budget is cut off and counted, and its
logins are refused for a while, so that a storm that begins again and again does not add up. Unless
it turns out afterwards that what was held were finished messages, which this node had not come to
read: that is nobody's fault.

On a bound socket a connection is, one after the other::

    stranger   has not proved a key: a login's worth of bytes, and no more than so many of them
    unnamed    has proved one, but which is not known before its first message: they share a budget
    named      its key's owner is known: all connections of a peer share a budget

On a socket that dials there is one connection, named after the server that is dialled. The thread
is not the event loop, as that may be busy when it is needed most. It reads the monitors of all
sockets, and hands on what they tell of connections dialled.
"""

import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from byzsgd.messages import Reason
from byzsgd.transport.base import STRANGER
from byzsgd.transport.connection import SUPPORTED, Connection
from byzsgd.transport.refusals import Refusals
from byzsgd.wire import Layout

KIB = 1024
MIB = 1024 * KIB

LOGIN_BYTES = 4 * KIB
"""What a stranger may send: a login takes some 600 bytes."""

STRANGERS_MAX = 64
"""Connections to a bound socket that have not logged in, besides one for each node of the cluster;
and as many that have logged in and said nothing. Above this those of the address that has most go,
oldest first: a login takes some round trips, and whoever makes hundreds of connections a second is
not to end those of others before it is done."""

CONNECTIONS_MAX = 8
"""Connections of one peer to a bound socket. A node needs one, and one more after its network was
gone; people with an operator's key may run some commands at once. Above this the oldest go."""

SUBSCRIPTION_BYTES = 64 * KIB
"""What all subscribers of one identity together may send before it is delivered. A subscription
costs 50 times its bytes."""

SPARE_BYTES = 1 * MIB
"""What a peer may have sent besides vectors: small messages that wait, and heartbeats."""

CREDIT_ERROR_BYTES = 1 * MIB
"""How much more than came may seem to be delivered, as heartbeats are only estimated."""

HEARTBEAT_BYTES_PER_SECOND = 48
"""Of others' heartbeats, which are not delivered: 42 bytes a ping and 40 a pong, every two seconds.
Ours are TCP's, and no bytes."""

RENEW_SECONDS = 6 * 3600.0
"""Who delivers nothing for this long is cut without blame, and dials again. What is allowed for
heartbeats could otherwise, over weeks, be the frames of a message that never ends."""

POLL_SECONDS = 0.02
"""How often connections are looked at. In between a peer on a fast line can send some 10 MB."""

TRIAL_SECONDS = 5.0
"""How long it may take at the most until all was read that had come when a connection was cut."""

EVENTS_AT_ONCE = 1000
"""Events of one socket that are read before connections are looked at again."""

LOGIN_SECONDS = 15.0
"""How long a login takes at the longest, and is remembered until its connection is found."""

TURNED_AWAY_MAX = 1000
"""Addresses of which it is remembered that they were turned away until they hang up."""

OF_BOUND = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_MONITOR_STOPPED
"""What a bound socket tells about its connections. Never ACCEPT_FAILED: it comes 100,000 times a
minute when file descriptors run out."""

OF_DIALLED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_MONITOR_STOPPED
)
"""The same of one that dials."""


def wire_bytes(sizes: Iterable[int]) -> int:
    """Bytes on a CURVE connection of a message with frames of these sizes."""
    # A command MESSAGE: name 8, nonce 8, box 16, flags 1; before it flags and 1 or 8 of length.
    return sum(size + 33 + (2 if size + 33 <= 255 else 9) for size in sizes)


def message_bytes(layout: Layout) -> int:
    """Bytes on the wire of a message with a vector, at most; they are what libzmq holds of it.

    Args:
        layout: Of the vector.
    """
    return layout.payload_bytes + 2 * KIB + wire_bytes([0] * layout.frame_count)


def identity_bytes(layout: Layout, queue: int) -> int:
    """Bytes that libzmq may hold of one identity on one socket: more, and a connection is cut.

    Args:
        layout: Of every vector; the largest, where they differ.
        queue: Messages that wait in a queue (``queue_messages``): with one that is being
            received and one that is being read, they are all that a correct peer can have there.
    """
    return (queue + 2) * message_bytes(layout) + SPARE_BYTES


def surplus(connections: Sequence[Connection], most: int) -> list[Connection]:
    """The connections to end so that no more than ``most`` are left.

    Of the address that has most, and of these those that were heard of least lately.
    """
    if len(connections) <= most:
        return []
    by_address: defaultdict[str, list[Connection]] = defaultdict(list)
    for connection in sorted(connections, key=lambda each: each.since, reverse=True):
        by_address[connection.address].append(connection)
    # By chance among equals: else those of the same address would always be the first to go.
    crowds = random.sample(list(by_address.values()), len(by_address))
    return [max(crowds, key=len).pop() for _ in range(len(connections) - most)]


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody was let in: by the doorkeeper, which knows no connection."""

    domain: str
    address: str
    peer: str
    at: float

    def is_at(self, domain: str, address: str) -> bool:
        """Whether it was there."""
        return (self.domain, self.address) == (domain, address)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message came whole."""

    fd: int
    """Of libzmq's, through which it came."""
    peer: str
    size: int
    """Bytes on the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One socket and its connections."""

    name: str
    """Of the ZAP domain that it is bound with, or of the server that it dials."""
    bound: bool
    port: int
    """Its own if it is bound, and otherwise the one that it dials."""
    budget: int
    """Bytes that libzmq may hold of all its connections of one peer."""
    on_cut: Callable[[str], object]
    """Told of a peer that was over its budget, and is to blame for it."""
    has_read: Callable[[float], bool]
    """Whether all was read that had come at a time; asked in the guard's thread."""
    on_event: Callable[[int], object] | None = None
    """Told of libzmq's events about the connection that is dialled."""
    connections: dict[int, Connection] = field(default_factory=dict)
    """By libzmq's descriptor; without those that were cut."""
    open: set[int] = field(default_factory=set)
    """The descriptors that libzmq holds."""
    on_ended: list[Callable[[], object]] = field(default_factory=list)
    """Told when there are none, once that is asked for."""


@dataclass(slots=True)
class Trial:
    """Connections that held too much and were cut: whether their peer is to blame."""

    watched: Watched
    fds: frozenset[int]
    peer: str | None
    at: float
    """When they were cut."""
    unfinished: float
    """Bytes of what they held then that belong to no message delivered since."""
    is_read: bool = False
    """Whether all was read that had come by then."""

    def is_of(self, delivery: Delivery) -> bool:
        """Whether a message came through one of these connections."""
        return delivery.fd in self.fds and self.peer in (None, delivery.peer)


class Guard:
    """Watches sockets until their context is terminated; it calls back in its own thread."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        members: int,
        refusals: Refusals,
        *,
        counting: bool = SUPPORTED,
    ) -> None:
        """Start; sockets are watched from when ``watch`` is called for them.

        Args:
            context: The one of the sockets.
            members: Nodes of the cluster: so many may come at once.
            refusals: Told of everybody who is cut off.
            counting: Whether to watch connections, or only to hand on events.
        """
        # Plain sockets, also where those of the context are asyncio's.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context.underlying)
        self._crowd = STRANGERS_MAX + members
        self._refusals = refusals
        self._counting = counting
        self._names = count()
        self._watched: dict[zmq.Socket[bytes], Watched] = {}
        self._logins: deque[Login] = deque()
        self._unaccounted: list[Delivery] = []
        self._trials: list[Trial] = []
        self._cut_at: dict[str, float] = {}
        self._turned_away: Counter[tuple[str, str]] = Counter()
        self._orders: deque[Callable[[float], None]] = deque()
        self._poller = zmq.Poller()
        # Says that the context ends, also where nothing else is there to say it.
        self._sentinel = self._context.socket(zmq.PAIR)
        self._poller.register(self._sentinel, zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()

    # Called by whoever owns the sockets

    def watch(self, socket: "zmq.Socket[Any]", watched: Watched) -> None:
        """Watch a socket that is neither bound nor connected yet, until it is closed.

        Args:
            socket: The socket; nobody else may monitor it.
            watched: What there is to know of it.
        """
        endpoint = f"inproc://guard-{next(self._names)}"
        socket.monitor(endpoint, OF_BOUND if watched.bound else OF_DIALLED)
        monitor = self._context.socket(zmq.PAIR)
        monitor.linger = 0
        monitor.rcvhwm = 0  # A full queue would hold up libzmq's threads.
        monitor.connect(endpoint)
        self._orders.append(lambda _: self._begin(monitor, watched))

    def join(self) -> None:
        """Wait for the thread, which ends when the context is terminated."""
        self._thread.join()

    # Called in any thread

    def logged_in(self, domain: str, address: str, peer: str | None) -> None:
        """Somebody was let in at a bound socket, from an address; or turned away: None."""
        if peer is None:
            self._orders.append(lambda _: self._turned_away.update([(domain, address)]))
            return
        login = Login(domain, address, peer, time.monotonic())
        self._orders.append(lambda _: self._logins.append(login))

    def delivered(self, fd: int, peer: str, size: int) -> None:
        """A message of so many bytes on the wire came whole, through libzmq's descriptor."""
        self._orders.append(lambda now: self._credit(Delivery(fd, peer, size), now))

    def cut(self, peer: str) -> None:
        """End all connections of a peer, without blame: it may not be connected any more."""
        asked = time.monotonic()
        self._orders.append(lambda _: self._cut_peer(peer, asked))

    def cut_connection(self, fd: int, peer: str) -> None:
        """End one connection of a peer, without blame."""
        self._orders.append(
            # By the time that this is done the number may be another connection's.
            lambda _: self._cut_where(lambda found: found.fd == fd and found.peer in (None, peer))
        )

    def cut_unnamed(self) -> None:
        """End all connections that may be anybody's, without blame: those who may, dial again."""
        self._orders.append(
            lambda _: self._cut_where(lambda found: found.logged_in and found.peer is None)
        )

    def end(self, watched: Watched, on_ended: Callable[[], object]) -> None:
        """End all connections of a socket that is about to be closed.

        Args:
            watched: The socket, which must not send any more.
            on_ended: Told, in the guard's thread, once libzmq has let go of them; at once where
                connections cannot be watched.
        """
        self._orders.append(lambda _: self._end_all(watched, on_ended))

    # The thread

    def _run(self) -> None:
        looked = time.monotonic()
        with suppress(zmq.ContextTerminated):
            while True:
                for monitor, _ in self._poller.poll(int(POLL_SECONDS * 1000)):
                    self._hear(monitor)
                now = time.monotonic()
                if now - looked >= POLL_SECONDS:
                    self._look(now, now - looked)
                    looked = now
        self._obey(looked)  # Among what was asked last may be sockets to close.
        self._sentinel.close()
        for monitor, watched in self._watched.items():
            monitor.close()
            self._let_go(watched)

    def _begin(self, monitor: "zmq.Socket[bytes]", watched: Watched) -> None:
        self._watched[monitor] = watched
        self._poller.register(monitor, zmq.POLLIN)

    def _hear(self, monitor: "zmq.Socket[bytes]") -> None:
        watched = self._watched[monitor]
        with suppress(zmq.Again):
            for _ in range(EVENTS_AT_ONCE):
                told = parse_monitor_message(monitor.recv_multipart(zmq.DONTWAIT))
                event, value = int(told["event"]), int(told["value"])
                if event in (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED):
                    watched.open.add(value)
                    self._take(watched, value)
                    continue
                if event == zmq.EVENT_MONITOR_STOPPED:
                    self._stop(monitor, watched)
                    return
                if event == zmq.EVENT_DISCONNECTED:
                    self._count_stranger(watched, value)
                    self._forget(watched, value)
                    watched.open.discard(value)
                    self._tell_ended(watched)
                if watched.on_event is not None:
                    watched.on_event(event)

    def _count_stranger(self, watched: Watched, fd: int) -> None:
        """Count a connection to a bound socket that ends, and has never logged in.

        libzmq itself ends those who say what is no handshake, or nothing for too long. Who was
        turned away for its key was counted then.
        """
        self._obey(time.monotonic())
        connection = watched.connections.get(fd)
        if connection is None or not watched.bound:
            return
        connection.look()
        turned_away = (watched.name, connection.address)
        if self._turned_away[turned_away]:
            self._turned_away[turned_away] -= 1
        elif not connection.logged_in:
            self._refusals.count(STRANGER, Reason.STRANGER, "a connection without a login")

    def _stop(self, monitor: "zmq.Socket[bytes]", watched: Watched) -> None:
        self._poller.unregister(monitor)
        del self._watched[monitor]
        monitor.close()
        self._let_go(watched)

    def _end_all(self, watched: Watched, on_ended: Callable[[], object]) -> None:
        watched.on_ended.append(on_ended)
        if not self._counting:
            watched.open.clear()
        for connection in watched.connections.values():
            connection.cut()
        self._tell_ended(watched)

    def _tell_ended(self, watched: Watched) -> None:
        if not watched.open:
            while watched.on_ended:
                watched.on_ended.pop()()

    def _take(self, watched: Watched, fd: int) -> None:
        if not self._counting:
            return
        self._forget(watched, fd)
        ports = (watched.port, 0) if watched.bound else (0, watched.port)
        connection = Connection.take(fd, ports, time.monotonic())
        if connection is None:
            return
        if not watched.bound:
            connection.peer, connection.logged_in = watched.name, True
        watched.connections[fd] = connection

    def _forget(self, watched: Watched, fd: int) -> None:
        gone = watched.connections.pop(fd, None)
        if gone is not None:
            gone.close()

    def _let_go(self, watched: Watched) -> None:
        for fd in list(watched.connections):
            self._forget(watched, fd)

    def _credit(self, delivery: Delivery, now: float) -> None:
        """Account for a message; once more at the next look, if its connection is not known yet."""
        for trial in self._trials:
            # Before all others: a new connection may have the number of one that was cut.
            if trial.is_of(delivery) and trial.unfinished > 0:
                trial.unfinished -= delivery.size
                return
        if not self._account(delivery, now):
            self._unaccounted.append(delivery)

    def _account(self, delivery: Delivery, now: float) -> bool:
        """Account for a message, if its connection is known."""
        for watched in self._watched.values():
            connection = watched.connections.get(delivery.fd)
            if connection is None:
                continue
            if not connection.logged_in or connection.undelivered < delivery.size:
                connection.look()
            # Somebody else's, or larger than all that came: a message of an earlier connection.
            if (
                not connection.logged_in
                or connection.peer not in (None, delivery.peer)
                or connection.credit + delivery.size > connection.received + CREDIT_ERROR_BYTES
            ):
                continue
            if connection.peer is None:
                self._use_login(watched.name, connection.address, delivery.peer)
            connection.credit = min(connection.credit + delivery.size, connection.received)
            connection.peer, connection.since = delivery.peer, now
            return True
        return False

    def _cut_peer(self, peer: str, asked: float) -> None:
        self._cut_at[peer] = asked
        self._cut_where(lambda connection: connection.peer == peer)

    def _cut_where(self, condition: Callable[[Connection], bool]) -> None:
        for watched in self._watched.values():
            for connection in [each for each in watched.connections.values() if condition(each)]:
                connection.cut()
                self._forget(watched, connection.fd)

    # Looking

    def _obey(self, now: float) -> None:
        while self._orders:
            self._orders.popleft()(now)

    def _look(self, now: float, seconds: float) -> None:
        # By now the monitors have told of every connection that these came through.
        for delivery in self._unaccounted:
            self._account(delivery, now)
        self._unaccounted.clear()
        self._trials = [trial for trial in self._trials if not self._judge(trial, now)]
        self._obey(now)
        self._turned_away += Counter()  # Forgets zeros.
        if len(self._turned_away) > TURNED_AWAY_MAX:
            self._turned_away.clear()
        while self._logins and now - self._logins[0].at > LOGIN_SECONDS:
            self._logins.popleft()
        for watched in self._watched.values():
            self._look_at(watched, now, HEARTBEAT_BYTES_PER_SECOND * seconds)

    def _look_at(self, watched: Watched, now: float, heartbeats: float) -> None:
        strangers: list[Connection] = []
        pools: defaultdict[str | None, list[Connection]] = defaultdict(list)
        for connection in list(watched.connections.values()):
            known = connection.logged_in
            connection.credit += heartbeats
            connection.look()
            if not connection.logged_in:
                self._look_at_stranger(watched, connection, strangers, now)
                continue
            login = None if known else self._login_of(watched.name, connection.address)
            if login is not None:
                connection.peer = login.peer
            before_cut = login is not None and login.at <= self._cut_at.get(login.peer, 0.0)
            if before_cut or now - connection.since > RENEW_SECONDS:
                connection.cut()
            pools[connection.peer].append(connection)
        self._thin(watched, strangers, self._crowd)
        for peer, connections in pools.items():
            self._thin(watched, connections, CONNECTIONS_MAX if peer else self._crowd)
            self._weigh(watched, connections)

    def _look_at_stranger(
        self, watched: Watched, connection: Connection, strangers: list[Connection], now: float
    ) -> None:
        if connection.received > LOGIN_BYTES:
            self._end(watched, connection, f"{connection.received} bytes, and no login")
        elif now - connection.since > LOGIN_SECONDS:
            self._end(watched, connection, f"no login within {LOGIN_SECONDS:g} s")
        else:
            strangers.append(connection)

    def _login_of(self, domain: str, address: str) -> Login | None:
        """The login of a connection that has just logged in, if it can only be one peer's.

        Several at one address that log in within one look may be mistaken for one another, so
        they stay unnamed until they speak.
        """
        logins = [login for login in self._logins if login.is_at(domain, address)]
        if len({login.peer for login in logins}) != 1:
            return None
        self._logins.remove(logins[0])
        return logins[0]

    def _use_login(self, domain: str, address: str, peer: str) -> None:
        """A connection was found for a login."""
        for login in self._logins:
            if login.peer == peer and login.is_at(domain, address):
                self._logins.remove(login)
                return

    def _thin(self, watched: Watched, connections: list[Connection], most: int) -> None:
        """End connections, if there are too many."""
        for connection in surplus(connections, most):
            connections.remove(connection)
            self._end(watched, connection, f"more than {most} connections")

    def _weigh(self, watched: Watched, connections: list[Connection]) -> None:
        """End the connections of a peer that hold too much together, and see whose fault it is.

        Of those that may be anybody's only the one that holds most.
        """
        if sum(connection.undelivered for connection in connections) <= watched.budget:
            return
        # What the kernel still has is not held by this process.
        held = [connection.held() for connection in connections]
        on_trial = sum(
            max(trial.unfinished, 0)
            for trial in self._trials
            if trial.watched is watched and trial.peer == connections[0].peer
        )
        if sum(held) + on_trial <= watched.budget:
            return
        peer = connections[0].peer
        if peer is None:
            most = max(held)
            connections, held = [connections[held.index(most)]], [most]
        for connection in connections:
            connection.cut()
            self._forget(watched, connection.fd)
        fds = frozenset(connection.fd for connection in connections)
        self._trials.append(Trial(watched, fds, peer, time.monotonic(), sum(held)))

    def _judge(self, trial: Trial, now: float) -> bool:
        """Count connections that were cut for what they held, once it is clear what that was."""
        if not trial.is_read and now - trial.at < TRIAL_SECONDS:
            # What was read by now is accounted for before the next look.
            trial.is_read = trial.watched.has_read(trial.at)
            return False
        # A correct peer has one message at most that it has not finished.
        if trial.is_read and trial.unfinished > trial.watched.budget / 2:
            detail = f"{trial.unfinished:.0f} bytes that belong to no finished message"
            self._refusals.count(trial.peer or STRANGER, Reason.FLOOD, detail)
            if trial.peer is not None:
                trial.watched.on_cut(trial.peer)
        else:
            detail = "more than there is room for until this node comes to read it"
            self._refusals.count(trial.peer or STRANGER, Reason.BEHIND, detail)
        return True

    def _end(self, watched: Watched, connection: Connection, detail: str) -> None:
        """Cut a connection off, and count it."""
        connection.cut()
        self._forget(watched, connection.fd)
        self._refusals.count(connection.peer or STRANGER, Reason.FLOOD, detail)
