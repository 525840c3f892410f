"""ZeroMQ with CURVE on every socket.

Sockets, by role::

    server      XPUB (bound): its models, to workers      ROUTER (bound): everything else
                a DEALER to every other server's ROUTER
    worker      a SUB and a DEALER to every server
    operator    a DEALER to every server

One SUB and one DEALER per server, each with that server's key pinned, because a socket connected
to two servers cannot tell them apart. On bound sockets the sender is whoever owns the key that the
``Doorkeeper`` answered as ``User-Id``. No routing id is ever set or believed: a second connection
with a claimed one would mute or hijack the first. They serve to answer on, and the last one that
an identity was seen with is used. The PUB is an XPUB, which says what its peers subscribe to: a
PUB keeps a hundred thousand topics and says nothing. A ``Guard`` watches all connections.
"""

import asyncio
import ipaddress
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType
from typing import cast
from weakref import WeakKeyDictionary

import zmq

from byzsgd.cluster import Cluster, Member, Role
from byzsgd.errors import WireError
from byzsgd.messages import VECTOR_MESSAGES, Message, Reason
from byzsgd.transport.base import (
    STRANGER,
    Boot,
    Direction,
    Handlers,
    Statistics,
    TransportError,
)
from byzsgd.transport.buckets import Buckets
from byzsgd.transport.channel import Channel
from byzsgd.transport.connection import SUPPORTED
from byzsgd.transport.guard import SUBSCRIPTION_BYTES, Guard, Watched, identity_bytes, wire_bytes
from byzsgd.transport.keys import public_of
from byzsgd.transport.refusals import Bans, Refusals
from byzsgd.transport.roster import Roster
from byzsgd.transport.zap import Doorkeeper
from byzsgd.wire import (
    BOOT_BYTES,
    FRAME_BYTES,
    KIND_OF,
    Frame,
    Header,
    Layout,
    Received,
    complete,
    decode_header,
    encode,
)

KIB = 1024
MIB = 1024 * KIB
SECONDS = 1000  # libzmq counts milliseconds.

TOPIC = b"m"
"""Of published models; there is no other."""

SUBSCRIBED, UNSUBSCRIBED = b"\x01", b"\x00"
"""What an XPUB puts before a topic."""

DOMAIN_MODELS = "models"
"""ZAP domain of the XPUB: servers and workers."""
DOMAIN_REQUESTS = "requests"
"""ZAP domain of the ROUTER: every node of the cluster file."""

IO_THREADS = 2
"""Two peers' messages can be encrypted at once, and a name server that does not answer holds up
half of the connections only."""

LARGE_BYTES = 32 * MIB
"""Above this, a vector is large: half as many messages wait in each queue."""

QUEUE_MESSAGES = 2
"""Messages that wait in a queue of models to send; half with large ones. Queues are counted in
messages, so this times the vector's size bounds memory, and what is older than that is worth
nothing any more. As much of a peer may wait to be read, counted in bytes, and by the guard."""

RECEIVE_QUEUE_MESSAGES_MAX = 0
"""Messages that libzmq lets wait to be read: no limit, where the guard has one. A full queue makes
libzmq stop reading, and if such a connection ends and a heartbeat of the peer's (PING) is among
what it has read already, it ends the process (4.3.5, ``Assertion failed: !_io_error``). Any peer
can bring that about."""

REQUEST_QUEUE_MESSAGES = 4
"""Messages that wait for one peer in a queue to send, other than published models; half with large
ones. A hello, a pull, a vote and an answer may follow one another before libzmq's thread has
taken the first, and the vectors among them are held elsewhere anyway."""

FRAME_BYTES_MAX = FRAME_BYTES + KIB
"""Longest frame that is taken in, with room for what CURVE adds. A stranger who has not finished
its first frame can make the node hold this much."""

SUBSCRIPTION_BYTES_MAX = KIB
"""Longest frame that an XPUB takes in: a login fits, and a megabyte of topic does not."""

HANDSHAKE_MS = 5 * SECONDS
"""A login not finished after this is given up, by both sides. It is also how long somebody who was
turned away waits before it tries again."""

KEEPALIVE_SECONDS = 2
KEEPALIVE_PROBES = 5
DEAD_MS = 12 * SECONDS
"""The system asks after a line on which nothing comes, every KEEPALIVE_SECONDS, and gives it up
after DEAD_MS without an answer, whether it is idle or data is under way. Much later would be slower
than it looks: the system sends what is unanswered after twice as long each time, so that a line
that comes back after a minute would lie idle for most of another. A peer that reads nothing is
given up as well once there is more for it than fits.

Never libzmq's own heartbeats: one that is due waits behind data, and so misses a dead line. And
they are one more way to end a process whose receive queue is full."""

CONNECT_MS = 2 * SECONDS
"""An attempt to dial is given up after this, and made anew. Left to itself the system tries after
1, 3, 7, 15, 31 ... seconds, so that a peer that comes back after a minute would wait as long."""

RECONNECT_MS = 100
RECONNECT_SPREAD_MS = 100
RECONNECT_MAX_MS = 3 * SECONDS
"""The first pause before dialling again lies between RECONNECT_MS and twice that, by chance for
each socket, so that the peers of a restarted node do not come back all at once; then it doubles."""

BACKLOG = 1024
"""Connections that wait to be accepted: after a restart all peers come within a second."""

SOCKETS_PER_SERVER = 12
"""A SUB, a DEALER, the two ends of their monitors, and all that once more while it is redialled."""

INLINE_BYTES = FRAME_BYTES
"""A payload up to this, one frame, is copied on the event loop, in 0.1 ms or so; a trip through a
thread costs more."""

MESSAGES_PER_SECOND = 1000.0
MESSAGES_BURST = 5000.0
"""Messages of one peer that are taken in a second, and without a pause: what a node finds that was
frozen for a while. A correct peer says one or two things a step, and no step takes so little."""

ENDING_SECONDS = 1.0
"""How long libzmq may take to let go of connections that were ended, before their socket is closed
all the same."""

TURN_SECONDS = 0.04
"""What had come is said to the event loop by then, if it has a turn."""


def queue_messages(d: int) -> int:
    """Messages that wait in a queue of models to send, and of one peer to be read.

    Args:
        d: Coordinates of every vector.
    """
    return QUEUE_MESSAGES // (2 if 4 * d > LARGE_BYTES else 1)


def request_queue_messages(d: int) -> int:
    """Messages that wait for one peer in a queue to send, other than published models.

    Args:
        d: Coordinates of every vector.
    """
    return REQUEST_QUEUE_MESSAGES * queue_messages(d) // QUEUE_MESSAGES


class ZeroMQ:
    """A ``Transport`` over ZeroMQ sockets."""

    def __init__(
        self,
        identity: str,
        cluster: Cluster,
        secret_key: str,
        d: int,
        handlers: Handlers,
        *,
        buffers: int = 0,
        bind_host: str | None = None,
        io_threads: int = IO_THREADS,
    ) -> None:
        """Prepare; no socket is made before ``open``.

        Args:
            identity: A node of the cluster.
            cluster: The cluster file's content, with keys.
            secret_key: The secret key that belongs to the node's public key there.
            d: Coordinates of every vector.
            handlers: Told of all that happens.
            buffers: So many of them, at the end, are buffers, not parameters. Operators need not
                know.
            bind_host: For a server, the address of this machine to listen on, ``*`` for all. None
                takes the one of the cluster file, or all where that holds a name: libzmq listens
                on no names.
            io_threads: Threads of libzmq; each can encrypt for one connection at a time.
        """
        member = cluster.node(identity)
        assert member is not None, f"{identity} is not in the cluster file"
        assert public_of(secret_key) == member.public_key, f"not the secret key of {identity}"
        self.boot: Boot = secrets.token_bytes(BOOT_BYTES)
        """On every message of this life of the node."""
        self._member = member
        self._cluster = cluster
        self._secret_key = secret_key
        self._handlers = handlers
        self._bind_host = bind_host
        self._io_threads = io_threads
        self._queue = queue_messages(d)
        self._request_queue = request_queue_messages(d)
        self._roster = Roster(cluster)
        layouts = {
            role: Layout(d, cluster.wire_type_between(member.role, role), buffers) for role in Role
        }
        self._layouts = {node.id: layouts[node.role] for node in cluster.nodes}
        self._published_layout = layouts[Role.WORKER]
        # Of what comes, the largest: from servers.
        self._largest = layouts[Role.SERVER]
        self._frames_max = 1 + self._largest.frame_count  # And a routing id or the topic.
        # Rounding takes milliseconds, and whoever pulls again and again could ask for many of them.
        self._rounded: WeakKeyDictionary[Message, list[zmq.Frame]] = WeakKeyDictionary()

        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._doorkeeper: Doorkeeper | None = None
        self._publisher: Channel | None = None
        self._router: Channel | None = None
        self._dealers: dict[str, Channel] = {}
        self._subscribers: dict[str, Channel] = {}
        self._watched: dict[Channel, Watched] = {}
        self._ending: set[Channel] = set()
        self._routes: dict[str, bytes] = {}
        self._redials: dict[str, asyncio.TimerHandle] = {}
        self._bans = Bans()
        self._talk = Buckets[str](MESSAGES_BURST, MESSAGES_PER_SECOND)
        self._failure: asyncio.Future[None]
        self._runs = False
        self._turn_at = time.monotonic()

        self._messages: Counter[tuple[str, Direction]] = Counter()
        self._bytes: Counter[tuple[str, Direction]] = Counter()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[tuple[str, Reason]] = Counter()
        # Of connections: counted in other threads, and told of by the second.
        self._refusals = Refusals(self._turned_away)
        self._last_seen: dict[str, float] = {}
        self._boot_of: dict[str, Boot] = {}
        self._connected: set[str] = set()

    # Opening and closing

    async def open(self) -> None:
        """Listen, if this is a server, and begin to dial every server.

        Raises:
            TransportError: If an address cannot be used; nothing is left open then.
        """
        assert self._context is None, "opened before"
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        self._context = zmq.Context(self._io_threads)
        self._context.set(zmq.MAX_SOCKETS, 16 + SOCKETS_PER_SERVER * self._cluster.n_servers)
        self._guard = Guard(self._context, len(self._cluster.nodes), self._refusals)
        try:
            if self._member.role is Role.SERVER:
                self._listen()
            for server in self._cluster.servers:
                if server != self._member.id:
                    self._dial(server)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back every socket; what is still on its way is lost."""
        if self._context is None:
            return
        for redial in self._redials.values():
            redial.cancel()
        channels = {*self._channels(), *self._ending}
        ends_at = time.monotonic() + ENDING_SECONDS
        all_ended = [threading.Event() for _ in channels]
        for channel, ended in zip(channels, all_ended, strict=True):
            self._end(channel, ended.set)
        for ended in all_ended:
            ended.wait(max(ends_at - time.monotonic(), 0))
        self._ending.clear()
        for channel in channels:
            channel.close()
        self._context.term()
        self._guard.join()
        if self._doorkeeper is not None:
            self._doorkeeper.join()
        self._context = None

    def _listen(self) -> None:
        nodes = self._cluster.nodes
        everyone = frozenset(node.id for node in nodes)
        operators = frozenset(node.id for node in nodes if node.role is Role.OPERATOR)
        self._doorkeeper = Doorkeeper(
            self._existing_context,
            self._roster,
            {DOMAIN_MODELS: everyone - operators, DOMAIN_REQUESTS: everyone},
            self._refusals,
            self._guard.logged_in,
        )
        self._publisher = self._channel(
            zmq.XPUB, self._queue, SUBSCRIPTION_BYTES_MAX, self._subscribed
        )
        # Every subscription is then told of, not only the first to a topic: so it becomes known
        # whose each connection is, and a topic that must not be does not hide behind another's.
        self._publisher.socket.set(zmq.XPUB_VERBOSE, 1)
        self._router = self._channel(
            zmq.ROUTER, self._request_queue, FRAME_BYTES_MAX, self._requested
        )
        # A peer that is gone or slow is then an error to count, and not silence.
        self._router.socket.router_mandatory = 1
        self._bind(
            self._publisher, DOMAIN_MODELS, self._member.publish_endpoint, SUBSCRIPTION_BYTES
        )
        self._bind(self._router, DOMAIN_REQUESTS, self._member.request_endpoint, self._budget)

    @property
    def _budget(self) -> int:
        return identity_bytes(self._largest, self._queue)

    def _bind(self, channel: Channel, domain: str, endpoint: tuple[str, int], budget: int) -> None:
        assert self._doorkeeper is not None
        socket = channel.socket
        host, port = endpoint
        host = self._bind_host or (host if is_address(host) else "*")
        socket.curve_server = True
        socket.curve_secretkey = self._secret_key.encode()
        socket.set_string(zmq.ZAP_DOMAIN, domain)
        # Without this, libzmq serves every stranger when no ZAP handler answers.
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.ipv6 = ":" in host
        address = f"tcp://{host}:{port}"
        self._watched[channel] = Watched(
            name=domain,
            bound=True,
            port=port,
            budget=budget,
            on_cut=self._doorkeeper.ban,
            has_read=partial(self._has_read, channel),
        )
        self._guard.watch(socket, self._watched[channel])
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise TransportError(
                f"{self._member.id} cannot listen on {address}: {_cause(error)}"
            ) from None

    def _dial(self, server: str) -> None:
        """Dial a server, unless it is not admitted."""
        self._redials.pop(server, None)
        node = self._cluster.node(server)
        assert node is not None
        assert server not in self._dealers
        if not node.admitted:
            return
        dealer = self._channel(
            zmq.DEALER, self._request_queue, FRAME_BYTES_MAX, partial(self._answered, server)
        )
        self._dealers[server] = dealer
        # Nothing queues for a peer that is away: it would arrive stale.
        dealer.socket.immediate = 1
        heard = partial(self._heard_of, server, dealer)
        self._connect(
            dealer,
            node,
            node.request_endpoint,
            lambda event: self._loop.call_soon_threadsafe(heard, event),
        )
        if self._member.role is Role.WORKER:
            subscriber = self._channel(
                zmq.SUB, self._queue, FRAME_BYTES_MAX, partial(self._published, server)
            )
            self._subscribers[server] = subscriber
            subscriber.socket.subscribe(TOPIC)
            self._connect(subscriber, node, node.publish_endpoint)
        if self._runs:
            for channel in self._channels(server):
                channel.begin()

    def _hang_up(self, server: str) -> None:
        """End the connections to a server; what came through them and was not read is lost."""
        for channels in (self._dealers, self._subscribers):
            if (channel := channels.pop(server, None)) is not None:
                self._ending.add(channel)
                ended = partial(self._ended, channel)
                self._end(channel, partial(self._loop.call_soon_threadsafe, ended))
                self._loop.call_later(ENDING_SECONDS, ended)
        if server in self._connected:
            self._connected.remove(server)
            self._handlers.disconnected(server)

    def _end(self, channel: Channel, on_ended: Callable[[], object]) -> None:
        """Read no more of a socket, and end its connections, so that it can be closed."""
        channel.stop()
        watched = self._watched.get(channel)
        if watched is None:
            on_ended()
        else:
            self._guard.end(watched, on_ended)

    def _ended(self, channel: Channel) -> None:
        """Close a socket whose connections have ended, or would not."""
        if channel in self._ending:
            self._ending.remove(channel)
            self._watched.pop(channel, None)
            channel.close()

    def _connect(
        self,
        channel: Channel,
        node: Member,
        endpoint: tuple[str, int],
        on_event: Callable[[int], object] | None = None,
    ) -> None:
        socket = channel.socket
        host, port = endpoint
        self._watched[channel] = Watched(
            name=node.id,
            bound=False,
            port=port,
            budget=self._budget,
            on_cut=lambda peer: self._loop.call_soon_threadsafe(self._leave_alone, peer),
            has_read=partial(self._has_read, channel),
            on_event=on_event,
        )
        self._guard.watch(socket, self._watched[channel])
        socket.curve_publickey = self._member.public_key.encode()
        socket.curve_secretkey = self._secret_key.encode()
        socket.curve_serverkey = node.public_key.encode()
        socket.ipv6 = ":" in host
        address = f"tcp://{host}:{port}"
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            raise TransportError(
                f"{self._member.id} cannot dial {node.id} at {address}: {_cause(error)}"
            ) from None

    def _channels(self, *servers: str) -> list[Channel]:
        """All there are; or those to these servers."""
        of_all = [] if servers else [self._publisher, self._router]
        dialled = [
            channels.get(server)
            for channels in (self._dealers, self._subscribers)
            for server in servers or self._dealers
        ]
        return [channel for channel in of_all + dialled if channel is not None]

    def _channel(
        self, kind: int, queue: int, frame_bytes_max: int, take: Callable[[list[zmq.Frame]], None]
    ) -> Channel:
        """A socket with every option that they share; queues count from the next connection on."""
        socket = self._existing_context.socket(kind)
        socket.linger = 0
        socket.sndhwm = queue
        socket.rcvhwm = RECEIVE_QUEUE_MESSAGES_MAX if SUPPORTED else self._queue
        socket.maxmsgsize = frame_bytes_max
        socket.handshake_ivl = HANDSHAKE_MS
        socket.tcp_keepalive = 1
        socket.tcp_keepalive_idle = KEEPALIVE_SECONDS
        socket.tcp_keepalive_intvl = KEEPALIVE_SECONDS
        socket.tcp_keepalive_cnt = KEEPALIVE_PROBES
        socket.set(zmq.TCP_MAXRT, DEAD_MS)
        socket.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
        socket.reconnect_ivl = RECONNECT_MS + random.randrange(RECONNECT_SPREAD_MS)
        socket.reconnect_ivl_max = RECONNECT_MAX_MS
        socket.backlog = BACKLOG
        return Channel(socket, self._frames_max, take, self._failed)

    @property
    def _existing_context(self) -> "zmq.Context[zmq.Socket[bytes]]":
        assert self._context is not None, "not open"
        return self._context

    # Who may connect

    def admit(self, cluster: Cluster) -> frozenset[str]:
        """From now on, count the keys of another version of the cluster file.

        Connections of keys that no longer count are cut at once, and nothing that came through
        them is taken any more; servers whose key has changed are dialled again.

        Args:
            cluster: As before, but for ``public_key`` and ``admitted`` of other nodes than this.

        Returns:
            The identities that this changes something for.
        """
        self._cluster = cluster
        changed = self._roster.replace(cluster)
        for peer in sorted(changed):
            self._routes.pop(peer, None)
            self._guard.cut(peer)
            if peer in cluster.servers and peer != self._member.id:
                if (redial := self._redials.pop(peer, None)) is not None:
                    redial.cancel()
                self._hang_up(peer)
                self._dial(peer)
        if changed:
            self._guard.cut_unnamed()
        return changed

    def _leave_alone(self, server: str) -> None:
        """Hang up on a server that sent too much, and dial it again after a while."""
        if self._context is None or server not in self._dealers:
            return
        self._hang_up(server)
        self._redial_after(self._bans.add(server, self._loop.time()), server)

    def _redial_after(self, seconds: float, server: str) -> None:
        self._redials[server] = self._loop.call_later(seconds, self._redial, server)

    def _redial(self, server: str) -> None:
        """Dial a server again; and once more later, should there be no descriptor left, say."""
        try:
            self._dial(server)
        except (TransportError, zmq.ZMQError):
            self._hang_up(server)
            self._redial_after(RECONNECT_MAX_MS / SECONDS, server)
            raise

    # Sending

    def send(self, peers: Sequence[str], message: Message) -> None:
        """Send a message to each of these peers that can be sent to now.

        A server reaches servers through the connections that it dialled; everybody else, and those
        that it cannot reach so, through the last connection that they were heard on.
        """
        encoded: dict[Layout, tuple[str, int, list[zmq.Frame]]] = {}
        for peer in peers:
            layout = self._layouts[peer]
            if layout not in encoded:
                encoded[layout] = self._frames(message, layout)
            kind, size, frames = encoded[layout]
            if self._send(peer, frames):
                self._messages[kind, "sent"] += 1
                self._bytes[kind, "sent"] += size
            else:
                self._dropped[peer, kind] += 1

    def publish(self, message: Message) -> None:
        """Send a message from a server to every worker that listens."""
        assert self._publisher is not None, "only a server publishes"
        kind, size, frames = self._frames(message, self._published_layout)
        self._publisher.send([TOPIC, *frames])
        self._messages[kind, "sent"] += 1
        self._bytes[kind, "sent"] += size

    def new_life(self) -> None:
        """Put a new boot id on every message from here on, as a restart would."""
        self.boot = secrets.token_bytes(BOOT_BYTES)
        self._rounded.clear()

    def _frames(self, message: Message, layout: Layout) -> tuple[str, int, list[zmq.Frame]]:
        """Kind, bytes and frames; the same frames go to every peer, and large ones are no copy.

        What is rounded for them is kept for as long as the message is.
        """
        rounds = layout.rounded and isinstance(message, VECTOR_MESSAGES)
        frames = self._rounded.get(message) if rounds else None
        if frames is None:
            frames = [zmq.Frame(part) for part in encode(message, self.boot, layout)]
            if rounds:
                self._rounded[message] = frames
        return KIND_OF[type(message)].value, sum(map(len, frames)), frames

    def _send(self, peer: str, frames: list[zmq.Frame]) -> bool:
        # Not before the handlers know: what they say first is to be the first that is heard.
        if peer in self._connected:
            return self._dealers[peer].send(frames)
        # A server that has just restarted dials at once, and is dialled again seconds later.
        route = self._routes.get(peer)
        if route is None:
            return False
        assert self._router is not None, "who hears peers has a router"
        return self._router.send([route, *frames])

    # Receiving

    async def run(self) -> None:
        """Receive, and tell the handlers, until cancelled."""
        self._runs = True
        for channel in self._channels():
            channel.begin()
        await self._failure

    def _failed(self, error: BaseException) -> None:
        """A bug of ours: it ends ``run``."""
        if not self._failure.done():
            self._failure.set_exception(error)

    def _has_read(self, channel: Channel, at: float) -> bool:
        """Whether all was read that had come to a channel at a time; called in any thread."""
        since = at + TURN_SECONDS
        if self._turn_at > since and channel.empty_at > since:
            return True
        # For when it is asked again. Two turns: in the first one others are told of what is there.
        self._loop.call_soon_threadsafe(self._loop.call_soon, self._has_turn)
        return False

    def _has_turn(self) -> None:
        self._turn_at = time.monotonic()

    def _requested(self, frames: list[zmq.Frame]) -> None:
        assert self._router is not None
        route, *frames = frames
        key = cast(str, route.get("User-Id"))
        peer = self._roster.owner(key)
        if peer is None:
            self._refuse_key(key, route)
            return
        self._delivered(route, peer, frames)
        self._routes[peer] = route.bytes
        self._take(self._router, peer, frames, lambda: self._roster.owner(key) == peer)

    def _subscribed(self, frames: list[zmq.Frame]) -> None:
        """Make sure that nobody subscribes to anything but models."""
        frame, *more = frames
        if frame.bytes[:1] == UNSUBSCRIBED and not more:
            return  # libzmq says it of connections that are gone, and not whose they were.
        key = cast(str, frame.get("User-Id"))
        peer = self._roster.owner(key)
        if peer is None:
            self._refuse_key(key, frame)
        elif self._talks_too_much(peer):
            self._shut_up(peer)
        elif frame.bytes == SUBSCRIBED + TOPIC and not more:
            self._delivered(frame, peer, [frame])
        else:
            assert self._doorkeeper is not None
            self._refuse(peer, Reason.MALFORMED, "other than a subscription to models")
            self._guard.cut_connection(frame.get(zmq.SRCFD), peer)
            self._doorkeeper.ban(peer)

    def _answered(self, server: str, frames: list[zmq.Frame]) -> None:
        dealer = self._dealers[server]
        self._delivered(frames[0], server, frames)
        self._take(dealer, server, frames, lambda: self._dealers.get(server) is dealer)

    def _published(self, server: str, frames: list[zmq.Frame]) -> None:
        subscriber = self._subscribers[server]
        self._delivered(frames[0], server, frames)
        topic, *frames = frames
        if topic.bytes == TOPIC:
            self._take(
                subscriber, server, frames, lambda: self._subscribers.get(server) is subscriber
            )
        else:
            self._refuse(server, Reason.MALFORMED, "another topic")

    def _delivered(self, first: zmq.Frame, peer: str, frames: Sequence[zmq.Frame]) -> None:
        """Tell the guard of frames that came whole; the first one knows the connection."""
        self._guard.delivered(first.get(zmq.SRCFD), peer, wire_bytes(map(len, frames)))

    def _refuse_key(self, key: str, frame: zmq.Frame) -> None:
        """Refuse a message of a key that has been let in, and does not count any more."""
        former = self._roster.former_owner(key) or STRANGER
        self._refuse(former, Reason.NOT_ADMITTED, f"key {key}")
        self._guard.cut_connection(frame.get(zmq.SRCFD), former)

    def _take(
        self,
        channel: Channel,
        peer: str,
        frames: list[zmq.Frame],
        still_counts: Callable[[], bool],
    ) -> None:
        """Make a message of frames, and hand it over; a large payload is copied in a thread."""
        self._last_seen[peer] = self._loop.time()
        if self._talks_too_much(peer):
            self._shut_up(peer)
            return
        buffers = [frame.buffer for frame in frames]
        layout = self._layouts[peer]
        try:
            header = decode_header(buffers, layout)
            if header.payload_bytes <= INLINE_BYTES:
                self._hand_over(peer, header, buffers, complete(header, buffers, layout))
                return
        except WireError as error:
            self._refuse(peer, Reason(error.reason), str(error))
            return

        def copied(work: "asyncio.Future[Received]") -> None:
            error = work.exception()
            if self._context is None:
                return
            if isinstance(error, WireError):
                self._refuse(peer, Reason(error.reason), str(error))
            elif still_counts():
                self._hand_over(peer, header, buffers, work.result())
            else:
                self._refuse(peer, Reason.NOT_ADMITTED, "its key has changed meanwhile")

        channel.pause_for(
            self._loop.run_in_executor(None, complete, header, buffers, layout), copied
        )

    def _hand_over(
        self, peer: str, header: Header, buffers: Sequence[Frame], received: Received
    ) -> None:
        self._boot_of[peer] = received.boot
        self._messages[header.kind.value, "received"] += 1
        self._bytes[header.kind.value, "received"] += sum(map(len, buffers))
        self._handlers.received(peer, received.message)

    def _talks_too_much(self, peer: str) -> bool:
        return not self._talk.take(peer, self._loop.time())

    def _shut_up(self, peer: str) -> None:
        """End the connections of a peer that says too much, and keep it out for a while."""
        self._refuse(peer, Reason.FLOOD, f"over {MESSAGES_PER_SECOND:g} messages a second")
        self._guard.cut(peer)
        if self._doorkeeper is not None:
            self._doorkeeper.ban(peer)
        self._leave_alone(peer)

    def _refuse(self, peer: str, reason: Reason, detail: str) -> None:
        self._refused[peer, reason] += 1
        self._handlers.refused(peer, reason, detail)

    def _turned_away(self, peer: str, reason: Reason, detail: str) -> None:
        """Called in any thread; the refusal is counted already."""
        self._loop.call_soon_threadsafe(self._tell_turned_away, peer, reason, detail)

    def _tell_turned_away(self, peer: str, reason: Reason, detail: str) -> None:
        if self._context is not None:
            self._handlers.refused(peer, reason, detail)

    def _heard_of(self, server: str, dealer: Channel, event: int) -> None:
        """Something has happened to the connection to a server; the guard heard it first."""
        if self._context is None or self._dealers.get(server) is not dealer:
            return
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._connected.add(server)
            self._handlers.connected(server)
        elif event != zmq.EVENT_DISCONNECTED:
            detail = (
                "no handshake: it holds another key than the cluster file says, or refuses ours"
            )
            # It comes again with every attempt.
            self._refusals.count(server, Reason.STRANGER, detail)
        elif server in self._connected:
            self._connected.remove(server)
            self._handlers.disconnected(server)

    # Counting

    def statistics(self) -> Statistics:
        """What has been counted so far."""
        refused = self._refused + self._refusals.counts()
        return Statistics(
            messages=MappingProxyType(self._messages.copy()),
            bytes=MappingProxyType(self._bytes.copy()),
            dropped=MappingProxyType(self._dropped.copy()),
            refused=MappingProxyType(refused),
            last_seen=MappingProxyType(self._last_seen.copy()),
            boot=MappingProxyType(self._boot_of.copy()),
            connected=frozenset(self._connected),
        )


def is_address(host: str) -> bool:
    """Whether a host of the cluster file is an IP address, with brackets if it is an IPv6 one."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _cause(error: zmq.ZMQError) -> str:
    """What the system says, without what pyzmq adds to it."""
    return zmq.strerror(error.errno or 0).lower()
