"""What the doorkeeper answers, in ZAP's own words."""

import threading
from collections.abc import Iterator

import pytest
import zmq
from zmq.utils import z85

from byzsgd.messages import Reason
from byzsgd.transport import STRANGER, keys
from byzsgd.transport.zap import ENDPOINT, LOGINS_BURST, Doorkeeper

WORKER, OPERATOR, OTHER = (keys.generate().public for _ in range(3))


class Door:
    """Asks a doorkeeper as libzmq does, and hears its reports."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self.reports: list[tuple[str, Reason, str]] = []
        self.threads: set[int] = set()
        self.keeper = Doorkeeper(
            context,
            {WORKER: "w1", OPERATOR: "op"},
            {"models": frozenset({"w1"}), "requests": frozenset({"w1", "op"})},
            self.report,
        )
        self.socket = context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.rcvtimeo = 30_000
        self.socket.connect(ENDPOINT)

    def report(self, peer: str, reason: Reason, detail: str) -> None:
        self.reports.append((peer, reason, detail))
        self.threads.add(threading.get_ident())

    def login(self, key: str, domain: str) -> tuple[bytes, bytes]:
        """Status and user id of the reply."""
        request = [b"1.0", b"7", domain.encode(), b"10.0.0.9", b"w1", b"CURVE", z85.decode(key)]
        self.socket.send_multipart(request)
        version, number, status, _, user, _ = self.socket.recv_multipart()
        assert (version, number) == (b"1.0", b"7")
        return status, user


@pytest.fixture
def door() -> Iterator[Door]:
    with zmq.Context() as context:
        door = Door(context)
        yield door
        door.socket.close()
    door.keeper.join()


def test_a_key_of_the_cluster_file_gets_its_identity(door: Door) -> None:
    """Whatever routing id comes with it."""
    assert door.login(WORKER, "models") == (b"200", b"w1")
    assert door.login(WORKER, "requests") == (b"200", b"w1")
    assert door.login(OPERATOR, "requests") == (b"200", b"op")
    assert not door.reports


def test_who_may_not_come_in_is_told_to_come_back_later(door: Door) -> None:
    """A stranger, and an operator that wants to listen, get 300 and no identity."""
    assert door.login(OTHER, "requests") == (b"300", b"")
    assert door.login(OPERATOR, "models") == (b"300", b"")
    assert door.reports == [
        (STRANGER, Reason.STRANGER, f"key {OTHER} from 10.0.0.9"),
        ("op", Reason.WRONG_ROLE, "may not listen to models"),
    ]
    assert door.threads.isdisjoint({threading.get_ident()})


def test_strangers_are_all_counted_but_not_all_reported(door: Door) -> None:
    """A flood of them costs a number, not a line each."""
    for _ in range(500):
        door.login(OTHER, "models")
    refused, throttled = door.keeper.counts()

    assert refused == {(STRANGER, Reason.STRANGER): 500}
    assert not throttled
    assert 1 <= len(door.reports) < 100


def test_who_logs_in_without_end_has_to_wait(door: Door) -> None:
    """After a burst an identity is let in once a second; others, and other domains, as before."""
    statuses = [door.login(WORKER, "models")[0] for _ in range(500)]
    _, throttled = door.keeper.counts()

    assert statuses[:LOGINS_BURST] == [b"200"] * LOGINS_BURST
    assert statuses.count(b"300") == throttled["w1"] > 0
    assert door.login(WORKER, "requests") == (b"200", b"w1")
    assert door.login(OPERATOR, "requests") == (b"200", b"op")
