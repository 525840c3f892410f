"""Who may connect: a ZAP handler that maps CURVE keys to identities.

libzmq asks it at every login on a bound socket, and puts the identity that it answers on every
message of that connection. It runs in a thread of its own, so that logins do not wait while the
event loop does.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import zmq
from zmq.utils import z85

from byzsgd.messages import Reason
from byzsgd.transport.base import STRANGER

ENDPOINT = "inproc://zeromq.zap.01"

REPORT_SECONDS = 1.0
"""Refusals of one peer for one reason are counted always, and reported this often at most."""

LOGINS_BURST = 20
"""Logins of one identity in one domain that are let in without a pause: reconnecting to all that
it has, some times over."""

LOGINS_PER_SECOND = 1.0
"""Logins let in after that. A peer that reconnects for ever costs others their turn, and libzmq's
automatic routing ids may only be safe from being guessed while there are few of them."""

ADMITTED, NOT_NOW = b"200", b"300"
"""Status codes of ZAP. Not 400: after that, libzmq's client would never dial again, although the
cluster file of this node may know its key tomorrow."""

Report: TypeAlias = Callable[[str, Reason, str], None]


class Doorkeeper:
    """Answers ZAP requests until its context is terminated."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        identities: Mapping[str, str],
        admitted: Mapping[str, frozenset[str]],
        report: Report,
    ) -> None:
        """Start to answer; from here on, sockets of the context may be bound.

        Args:
            context: The one whose bound sockets ask.
            identities: For each public key (Z85) the identity that it proves.
            admitted: For each ZAP domain the identities that may connect.
            report: Called in the handler's thread with peer, reason and detail of a refusal.
        """
        self._identities = identities
        self._admitted = admitted
        self._report = report
        self._reported: dict[tuple[str, Reason], float] = {}
        self._logins: dict[tuple[str, str], tuple[float, float]] = {}
        self._lock = threading.Lock()
        self._refused: Counter[tuple[str, Reason]] = Counter()
        self._throttled: Counter[str] = Counter()
        # A plain socket, also where those of the context are asyncio's.
        own: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context.underlying)
        self._socket = own.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)
        self._thread.start()

    def counts(self) -> tuple[Counter[tuple[str, Reason]], Counter[str]]:
        """Refusals by peer and reason, and by peer the logins that came too often."""
        with self._lock:
            return self._refused.copy(), self._throttled.copy()

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
        identity = self._let_in(key, domain.decode(), address.decode(), time.monotonic())
        status = NOT_NOW if identity is None else ADMITTED
        return [version, request, status, b"", (identity or "").encode(), b""]

    def _let_in(self, key: str, domain: str, address: str, now: float) -> str | None:
        """The identity to let in, or None."""
        identity = self._identities.get(key)
        if identity is None:
            self._refuse(STRANGER, Reason.STRANGER, f"key {key} from {address}", now)
            return None
        if identity not in self._admitted[domain]:
            self._refuse(identity, Reason.WRONG_ROLE, f"may not listen to {domain}", now)
            return None
        if not self._take_token((domain, identity), now):
            with self._lock:
                self._throttled[identity] += 1
            return None
        return identity

    def _take_token(self, login: tuple[str, str], now: float) -> bool:
        tokens, since = self._logins.get(login, (float(LOGINS_BURST), now))
        tokens = min(tokens + (now - since) * LOGINS_PER_SECOND, float(LOGINS_BURST))
        self._logins[login] = (tokens - (tokens >= 1), now)
        return tokens >= 1

    def _refuse(self, peer: str, reason: Reason, detail: str, now: float) -> None:
        with self._lock:
            self._refused[peer, reason] += 1
        if now - self._reported.get((peer, reason), -REPORT_SECONDS) >= REPORT_SECONDS:
            self._reported[peer, reason] = now
            self._report(peer, reason, detail)
