"""Who may connect: a ZAP handler that lets in the keys of a roster.

libzmq asks it at every login on a bound socket, and puts what it answers, the public key, on every
message of that connection. The key and not its owner's identity, so that whose a message is, and
whether it still counts, is decided when it is read. The handler runs in a thread of its own, so
that logins do not wait while the event loop does.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import zmq
from zmq.utils import z85

from byzsgd.messages import Reason
from byzsgd.transport.base import STRANGER
from byzsgd.transport.buckets import Buckets
from byzsgd.transport.refusals import Bans, Refusals
from byzsgd.transport.roster import Roster

ENDPOINT = "inproc://zeromq.zap.01"

LOGINS_BURST = 20
"""Logins of one identity in one domain that are let in without a pause: reconnecting to all that
it has, some times over."""

LOGINS_PER_SECOND = 1.0
"""Logins let in after that. A peer that reconnects for ever costs others their turn, and libzmq's
automatic routing ids may only be safe from being guessed while there are few of them."""

ADMITTED, NOT_NOW = b"200", b"300"
"""Status codes of ZAP. Not 400: after that, libzmq's client would never dial again, although the
cluster file of this node may know its key tomorrow."""

LetIn: TypeAlias = Callable[[str, str, str | None], None]


class Doorkeeper:
    """Answers ZAP requests until its context is terminated."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        roster: Roster,
        admitted: Mapping[str, frozenset[str]],
        refusals: Refusals,
        let_in: LetIn,
    ) -> None:
        """Start to answer; from here on, sockets of the context may be bound.

        Args:
            context: The one whose bound sockets ask.
            roster: Whose keys count.
            admitted: For each ZAP domain the identities that may connect, if their keys count.
            refusals: Told of everybody who is turned away.
            let_in: Called in the handler's thread with domain, address and identity of a
                login, None for one that was turned away.
        """
        self._roster = roster
        self._admitted = admitted
        self._refusals = refusals
        self._tell = let_in
        self._logins = Buckets[tuple[str, str]](LOGINS_BURST, LOGINS_PER_SECOND)
        self._bans = Bans()
        self._lock = threading.Lock()
        # A plain socket, also where those of the context are asyncio's.
        own: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context.underlying)
        self._socket = own.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)
        self._thread.start()

    def ban(self, identity: str) -> None:
        """Turn an identity's logins away for a while, in every domain; may be called anywhere."""
        with self._lock:
            self._bans.add(identity, time.monotonic())

    def join(self) -> None:
        """Wait for the thread, which ends when the context is terminated."""
        self._thread.join()

    def _run(self) -> None:
        # The context may end in the middle of an answer as well.
        with self._socket as socket, suppress(zmq.ContextTerminated):
            while True:
                socket.send_multipart(self._answer(*socket.recv_multipart()))

    def _answer(
        self,
        version: bytes,
        request: bytes,
        domain: bytes,
        address: bytes,
        _: bytes,
        mechanism: bytes,
        *proof: bytes,
    ) -> list[bytes]:
        """The reply to a request, as ZAP (ZeroMQ RFC 27) lays them out."""
        assert mechanism == b"CURVE", mechanism
        key = z85.encode(proof[0]).decode()
        if self._lets_in(key, domain.decode(), address.decode(), time.monotonic()):
            return [version, request, ADMITTED, b"", key.encode(), b""]
        return [version, request, NOT_NOW, b"", b"", b""]

    def _lets_in(self, key: str, domain: str, address: str, now: float) -> bool:
        identity = self._roster.owner(key)
        if identity is None:
            former = self._roster.former_owner(key)
            reason = Reason.STRANGER if former is None else Reason.NOT_ADMITTED
            self._refusals.count(former or STRANGER, reason, f"key {key} from {address}")
        elif identity not in self._admitted[domain]:
            self._refusals.count(identity, Reason.WRONG_ROLE, f"may not listen to {domain}")
        elif self._is_banned(identity, now) or not self._logins.take((domain, identity), now):
            self._refusals.count(identity, Reason.THROTTLED, f"a login to {domain}, from {address}")
        else:
            self._tell(domain, address, identity)
            return True
        self._tell(domain, address, None)
        return False

    def _is_banned(self, identity: str, now: float) -> bool:
        with self._lock:
            return self._bans.holds(identity, now)
