"""The faults that tests rely on: each does what it says, and nothing is left of a network."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.network.namespaces import Network, joined, remove_leftovers

pytestmark = pytest.mark.processes

PORT = 7000

SOON_SECONDS = 1.0
"""How long is waited for what must not come."""

PATIENCE_SECONDS = 60.0
"""How long is waited for what must."""


class Pair:
    """Two hosts, one of which talks to the other."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.one, self.two = network.threads("one"), network.threads("two")
        self.listener = self.two.submit(socket.create_server, ("", PORT)).result()

    def dial(self, patience: float = PATIENCE_SECONDS) -> tuple[socket.socket, float]:
        """A connection from one to the other, and how long that took."""
        began = time.monotonic()
        address = (self.network.address("two"), PORT)
        dialled = self.one.submit(socket.create_connection, address, patience).result()
        return dialled, time.monotonic() - began

    def says(self, message: bytes) -> tuple[bytes, float]:
        """What comes of a message over a new connection, and how long that took."""
        dialled, _ = self.dial()
        accepted, _ = self.listener.accept()
        with dialled, accepted:
            began, heard = time.monotonic(), 0
            sending = self.one.submit(dialled.sendall, message)
            while heard < len(message):
                heard += len(accepted.recv(1 << 16))
            sending.result()
            return heard, time.monotonic() - began


@pytest.fixture
def pair(namespaces: None) -> Iterator[Pair]:
    with joined(["one", "two"]) as network:
        found = Pair(network)
        with found.listener:
            yield found
        found.one.shutdown()
        found.two.shutdown()


CUTS: dict[str, Callable[[Network], None]] = {
    "cut": lambda network: network.cut("two"),
    "block to": lambda network: network.block(["one"], ["two"]),
    "block from": lambda network: network.block(["two"], ["one"]),
}


@pytest.mark.parametrize("fault", CUTS)
def test_a_cut_loses_everything_until_it_heals(pair: Pair, fault: str) -> None:
    """No answer comes, not even that there is none."""
    CUTS[fault](pair.network)
    with pytest.raises(TimeoutError):
        pair.dial(SOON_SECONDS)
    pair.network.heal()
    pair.says(b"x")


def test_a_reset_is_an_answer(pair: Pair) -> None:
    """Connections that there are end at once."""
    dialled, _ = pair.dial()
    with dialled:
        pair.network.reset("two")
        dialled.sendall(b"x")
        with pytest.raises(ConnectionError):
            dialled.recv(1)


def test_a_delay_holds_up_both_ways(pair: Pair) -> None:
    """A connection needs a round trip."""
    pair.network.delay(100)
    dialled, seconds = pair.dial()
    dialled.close()
    assert seconds >= 0.2


def test_a_slow_line_takes_its_time(pair: Pair) -> None:
    """A megabyte at 10 Mbit/s, but for what goes through at first."""
    pair.network.slow(10)
    _, seconds = pair.says(bytes(1_000_000))
    assert seconds >= 0.7


def test_some_packets_are_lost(pair: Pair) -> None:
    """Of 200 datagrams at 20 % there is one for certain, and not all of them."""
    pair.network.lose(20)
    receiver = pair.two.submit(socket.socket, socket.AF_INET, socket.SOCK_DGRAM).result()
    sender = pair.one.submit(socket.socket, socket.AF_INET, socket.SOCK_DGRAM).result()
    with receiver, sender:
        receiver.bind(("", PORT))
        receiver.settimeout(SOON_SECONDS)
        for _ in range(200):
            sender.sendto(b"x", (pair.network.address("two"), PORT))
        heard = 0
        with suppress(TimeoutError):
            while True:
                heard += len(receiver.recv(1))
    assert 0 < heard < 200


def test_a_host_moves_and_its_name_with_it(pair: Pair) -> None:
    """Who asks on any host is told the new address, and finds it there."""
    old = pair.network.address("two")
    pair.network.move("two")
    assert pair.network.address("two") != old
    pair.says(b"x")
    asked = pair.network.command("one", "getent", "hosts", "two")
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert told.split()[0] == pair.network.address("two")


def test_nothing_is_left(namespaces: None) -> None:
    """Neither of a network that ended, whatever ended it, nor of a process that is gone."""
    own = f"byzsgd-{os.getpid()}-*"
    with pytest.raises(KeyError), joined(["one"]) as network:  # noqa: PT012
        assert list(Path("/run/netns").glob(own))
        network.cut("nobody")
    assert not list(Path("/run/netns").glob(own))

    with subprocess.Popen(["true"]) as ended:
        pass
    leftover = Path("/run/netns", f"byzsgd-{ended.pid}-one")
    subprocess.run(["ip", "netns", "add", leftover.name], check=True)
    remove_leftovers()
    assert not leftover.exists()
