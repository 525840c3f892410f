"""What the doorkeeper answers, in ZAP's own words."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from zmq.utils import z85

from byzsgd.cluster import Cluster
from byzsgd.messages import Reason
from byzsgd.transport import STRANGER, keys
from byzsgd.transport.refusals import Refusals
from byzsgd.transport.roster import Roster
from byzsgd.transport.zap import ENDPOINT, LOGINS_BURST, Doorkeeper

WORKER, OPERATOR, OTHER, NEW = (keys.generate().public for _ in range(4))


def cluster(worker: dict[str, Any]) -> Cluster:
    """A worker with certain keys of its entry, an operator and a server."""
    nodes = [
        {"id": "s1", "role": "server", "public_key": "0" * 40, "address": "localhost:7000"},
        {"id": "w1", "role": "worker", "public_key": WORKER} | worker,
        {"id": "op", "role": "operator", "public_key": OPERATOR},
    ]
    return Cluster.from_mapping({"f_servers": 0, "f_workers": 0, "task": "digits", "nodes": nodes})


class Door:
    """Asks a doorkeeper as libzmq does, and hears its reports."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self.reports: list[tuple[str, Reason, str]] = []
        self.threads: set[int] = set()
        self.roster = Roster(cluster({}))
        self.refusals = Refusals(self.report)
        self.let_in: list[tuple[str, str, str]] = []
        self.keeper = Doorkeeper(
            context,
            self.roster,
            {"models": frozenset({"w1"}), "requests": frozenset({"w1", "op"})},
            self.refusals,
            lambda *login: self.let_in.append(login),
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


def test_a_key_of_the_cluster_file_is_let_in(door: Door) -> None:
    """Whatever routing id comes with it; what is answered is the key, for every message."""
    assert door.login(WORKER, "models") == (b"200", WORKER.encode())
    assert door.login(WORKER, "requests") == (b"200", WORKER.encode())
    assert door.login(OPERATOR, "requests") == (b"200", OPERATOR.encode())
    assert door.let_in == [
        ("models", "10.0.0.9", "w1"),
        ("requests", "10.0.0.9", "w1"),
        ("requests", "10.0.0.9", "op"),
    ]
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

    assert door.refusals.counts() == {(STRANGER, Reason.STRANGER): 500}
    assert 1 <= len(door.reports) < 100


def test_who_logs_in_without_end_has_to_wait(door: Door) -> None:
    """After a burst an identity is let in once a second; others, and other domains, as before."""
    statuses = [door.login(WORKER, "models")[0] for _ in range(500)]
    throttled = door.refusals.counts()["w1", Reason.THROTTLED]

    assert statuses[:LOGINS_BURST] == [b"200"] * LOGINS_BURST
    assert statuses.count(b"300") == throttled > 0
    assert door.login(WORKER, "requests")[0] == b"200"
    assert door.login(OPERATOR, "requests")[0] == b"200"


def test_who_is_banned_stays_out_everywhere(door: Door) -> None:
    """A ban of an identity turns it away in every domain, and nobody else; 300, so it may come."""
    door.keeper.ban("w1")

    assert door.login(WORKER, "models") == (b"300", b"")
    assert door.login(WORKER, "requests") == (b"300", b"")
    assert door.login(OPERATOR, "requests")[0] == b"200"
    assert door.refusals.counts() == {("w1", Reason.THROTTLED): 2}


def test_a_key_off_the_roster_is_turned_away_under_its_owners_name(door: Door) -> None:
    """An old key, and one that is not admitted, get 300; put back, they are let in."""
    assert door.roster.replace(cluster({"public_key": NEW})) == {"w1"}
    assert door.login(WORKER, "models") == (b"300", b"")
    assert door.login(NEW, "models") == (b"200", NEW.encode())

    assert door.roster.replace(cluster({"public_key": NEW, "admitted": False})) == {"w1"}
    assert door.login(NEW, "models") == (b"300", b"")
    assert door.login(WORKER, "models") == (b"300", b"")
    assert door.refusals.counts() == {("w1", Reason.NOT_ADMITTED): 3}

    assert door.roster.replace(cluster({})) == {"w1"}
    assert door.login(WORKER, "models") == (b"200", WORKER.encode())
    assert door.login(OPERATOR, "requests") == (b"200", OPERATOR.encode())
