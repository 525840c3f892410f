"""Who is silent, by the node's own pace, and who cannot be sent to: told when it changes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from byzsgd.messages import GatherModel, Gradient, Model
from byzsgd.transport import Statistics
from byzsgd_daemons.presence import (
    SILENT_SECONDS,
    SILENT_STEPS,
    TOLD_SECONDS,
    UNSENT_AFTER_SECONDS,
    UNSENT_SECONDS,
    Presence,
)

VECTOR = np.float32([1])

SERVERS = ("s2", "s3", "s4", "s5")
WORKERS = ("w1", "w2", "w3", "w4")


@dataclass
class Watching:
    """A node in conversation, and what is known of its peers' presence."""

    conversation: Any
    presence: Presence
    statistics: Statistics

    def look(self) -> list[str]:
        """Look, and what there is to say."""
        notices = self.presence.look(self.statistics, self.conversation.now)
        return [notice.sentence for notice in notices]

    def steps(self, count: int, *mute: str) -> None:
        """Let a server do some steps at one instant, while some peers are mute."""
        s1, step = self.conversation, self.conversation.node.step
        for at in range(step, step + count):
            for worker in WORKERS:
                if worker not in mute:
                    s1.receives(worker, Gradient(at, VECTOR))
            s1.works()
            for server in SERVERS:
                if server not in mute:
                    s1.receives(server, GatherModel(at + 1, VECTOR))
            s1.works()
        assert s1.node.step == step + count


@pytest.fixture
def watching(statistics: Statistics) -> Callable[[Any], Watching]:
    """Watches the peers of a node."""
    return lambda conversation: Watching(conversation, Presence(conversation.node), statistics)


@pytest.fixture
def at_step_5(server: Any, watching: Any) -> Watching:
    """A server that heard everybody a moment ago."""
    found: Watching = watching(server())
    found.steps(5)
    assert found.look() == []
    return found


@pytest.mark.parametrize(
    ("peer", "line"),
    [
        ("w4", "w4 is silent: last seen 3 s ago; the reserve of workers is 0"),
        ("s5", "s5 is silent: last seen 3 s ago; the reserve of servers is 0"),
    ],
)
def test_a_peer_that_falls_silent_is_told_once(at_step_5: Watching, peer: str, line: str) -> None:
    """With what remains of the reserve, while the training goes on without it."""
    at_step_5.conversation.now += SILENT_SECONDS + 1
    at_step_5.steps(int(SILENT_STEPS), peer)

    assert at_step_5.look() == [line]
    assert at_step_5.presence.silent == {peer}
    at_step_5.conversation.now += 2 * TOLD_SECONDS
    at_step_5.steps(5, peer)
    assert at_step_5.look() == []


def test_a_peer_that_returns_is_told(at_step_5: Watching) -> None:
    """And counts in the reserve again."""
    at_step_5.conversation.now += SILENT_SECONDS + 1
    at_step_5.steps(5, "w4")
    at_step_5.look()

    at_step_5.conversation.now += TOLD_SECONDS
    at_step_5.steps(1)
    assert at_step_5.look() == ["w4 is back; the reserve of workers is 1"]
    assert not at_step_5.presence.silent


def test_a_peer_that_comes_and_goes_does_not_fill_the_log(at_step_5: Watching) -> None:
    """A line in ten seconds at most; what is known is up to date all the same."""
    lines = []
    for _ in range(10):
        at_step_5.conversation.now += SILENT_SECONDS + 1
        at_step_5.steps(5, "w4")
        lines += at_step_5.look()
        assert at_step_5.presence.silent == {"w4"}
        at_step_5.steps(1)
        lines += at_step_5.look()
        assert at_step_5.presence.silent == set()

    assert 1 <= len(lines) <= 1 + 10 * (SILENT_SECONDS + 1) / TOLD_SECONDS


def test_nobody_is_silent_where_steps_take_long(at_step_5: Watching) -> None:
    """A minute without a word says nothing if the node has made one step in it."""
    at_step_5.conversation.now += 60
    at_step_5.steps(1, "w4", "s5")

    assert at_step_5.look() == []
    assert at_step_5.presence.silent == set()


def test_nobody_is_silent_where_steps_are_quick(at_step_5: Watching) -> None:
    """A thousand steps in less than two seconds say nothing either."""
    at_step_5.conversation.now += SILENT_SECONDS
    at_step_5.steps(100, "w4", "s5")

    assert at_step_5.look() == []


def test_a_node_that_stands_still_calls_nobody_silent(at_step_5: Watching) -> None:
    """Whom it waits for is said elsewhere, and the others wait as well."""
    at_step_5.conversation.now += 1000

    assert at_step_5.look() == []
    assert at_step_5.presence.silent == set()


def test_servers_are_expected_at_gathers_alone(server: Any, cluster: Any, watching: Any) -> None:
    """With T = 10 a server says nothing to another one for ten steps, and is not silent."""
    found = watching(server(cluster(gather_period=10)))
    s1 = found.conversation

    def step() -> None:
        at = s1.node.step
        for worker in WORKERS:
            s1.receives(worker, Gradient(at, VECTOR))
        s1.works()
        if (at + 1) % 10 == 0:
            for peer in SERVERS:
                s1.receives(peer, GatherModel(at + 1, VECTOR))
            s1.works()

    for _ in range(29):
        s1.now += 1.0
        step()
        assert found.look() == []
    assert s1.node.progress.gathers == 2


def test_a_worker_expects_every_server_in_every_step(worker: Any, watching: Any) -> None:
    """And knows the reserve of servers alone."""
    found = watching(worker())
    w1 = found.conversation

    def step(at: int, *servers: str) -> None:
        for peer in servers:
            w1.receives(peer, Model(at, VECTOR))
        w1.works()
        w1.works(gradient=1.0)

    step(0, "s1", "s2", "s3", "s4", "s5")
    assert found.look() == []
    w1.now += SILENT_SECONDS + 1
    for at in range(1, 4):
        step(at, "s1", "s2", "s3", "s4")
    assert found.look() == ["s5 is silent: last seen 3 s ago; the reserve of servers is 0"]


def test_who_is_done_misses_nobody(worker: Any, cluster: Any, watching: Any) -> None:
    """After the last step there is nothing to say."""
    found = watching(worker(cluster(steps=1)))
    w1 = found.conversation
    for at in (0, 1):
        for peer in ("s1", "s2", "s3", "s4"):
            w1.receives(peer, Model(at, VECTOR))
        if at == 0:
            w1.works()
            w1.works(gradient=1.0)
    found.look()
    w1.node.progress.steps += 100
    w1.now += 1000

    assert w1.node.done
    assert found.look() == []


def drop(watching: Watching, *peers: str) -> list[str]:
    """Lose another message to each of these peers, and what there is to say."""
    counts = Counter(watching.statistics.dropped)
    counts.update((peer, "pull") for peer in peers)
    watching.statistics = replace(watching.statistics, dropped=counts)
    return watching.look()


def test_a_peer_that_cannot_be_sent_to_is_told_once(at_step_5: Watching) -> None:
    """With the reason, as far as it is known; and again once it reads."""
    at_step_5.statistics = replace(at_step_5.statistics, connected=frozenset({"s5"}))
    peers = ("s4", "s5", "w4")
    assert drop(at_step_5, *peers) == []
    at_step_5.conversation.now += UNSENT_AFTER_SECONDS
    assert drop(at_step_5, *peers) == [
        "cannot send to s4: there is no connection",
        "cannot send to s5: its queue is full",
        "cannot send to w4: it is away, or its queue is full",
    ]
    assert at_step_5.presence.unsent == set(peers)

    at_step_5.conversation.now += TOLD_SECONDS
    assert drop(at_step_5, *peers) == []
    at_step_5.conversation.now += TOLD_SECONDS
    assert at_step_5.look() == [], "nothing was heard of them since"
    at_step_5.steps(1)
    assert at_step_5.look() == [f"can send to {peer} again" for peer in peers]
    assert not at_step_5.presence.unsent


def test_a_burst_of_dropped_messages_is_not_said(at_step_5: Watching) -> None:
    """However many they are, and however often there is one."""
    for _ in range(10):
        for _ in range(10):
            assert drop(at_step_5, "s4") == []
        at_step_5.conversation.now += UNSENT_SECONDS
        at_step_5.steps(1)
        assert at_step_5.look() == []


def test_where_steps_take_long_one_drop_in_each_is_said(at_step_5: Watching) -> None:
    """As long as nothing comes from the peer in between."""
    drop(at_step_5, "s4")
    at_step_5.conversation.now += 60
    at_step_5.steps(1, "s4")

    assert drop(at_step_5, "s4") == ["cannot send to s4: there is no connection"]


def test_a_drop_now_and_then_is_one_state(at_step_5: Watching) -> None:
    """Though the peer is heard of all the time."""
    lines: list[str] = []
    for _ in range(20):
        at_step_5.conversation.now += UNSENT_SECONDS - 0.1
        at_step_5.steps(1)
        lines += drop(at_step_5, "s5")

    assert len(lines) == 1


def test_nothing_can_be_sent_before_the_first_connection(server: Any, watching: Any) -> None:
    """That is how every training begins."""
    found = watching(server())
    for _ in range(9):
        found.conversation.now += 1.0
        assert drop(found, "s2", "w1") == []
    assert found.presence.unsent == set()
