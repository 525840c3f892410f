"""Virtual time, and a network whose dice are seeded."""

import numpy as np

from byzsgd.simulation import Faults
from byzsgd.simulation.network import Clock, Network, Timeline, Wall, speaker


def arrivals(faults: Faults, *, at_once: bool = False) -> list[tuple[float, int]]:
    """When each of 500 messages of one moment arrives."""
    timeline = Timeline()
    network = Network(timeline, faults, np.random.default_rng(1))
    arrived: list[tuple[float, int]] = []
    for number in range(500):
        arrive = lambda n=number: arrived.append((timeline.now, n))  # type: ignore[misc]  # noqa: E731
        network.carry("w1", "s1", arrive, at_once=at_once)
    while timeline.advance():
        pass
    assert len(arrived) + network.lost >= 500
    return arrived


def test_the_order_of_time() -> None:
    """Things happen in the order of their time, and of their scheduling where times are equal."""
    timeline, happened = Timeline(), []
    for name, when in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.5)):
        timeline.at(when, lambda name=name: happened.append((timeline.now, name)))  # type: ignore[misc]
    while timeline.advance():
        pass

    assert happened == [(1.0, "a"), (1.5, "b"), (2.0, "c"), (2.0, "d")]


def test_time_never_goes_back() -> None:
    """What is scheduled in the past happens now."""
    timeline, times = Timeline(), []
    timeline.at(5.0, lambda: timeline.at(1.0, lambda: times.append(timeline.now)))
    while timeline.advance():
        pass

    assert times == [5.0]


def test_delays_reorder() -> None:
    """Messages of one moment arrive in another order, within the bounds of the delay."""
    arrived = arrivals(Faults(delay=(0.1, 0.2)))

    assert all(0.1 <= when <= 0.2 for when, _ in arrived)
    assert [number for _, number in arrived] != list(range(500))


def test_loss_duplication_and_stragglers() -> None:
    """Messages are lost, doubled and held up about as often as was asked for."""
    lost = arrivals(Faults(loss=0.2))
    doubled = arrivals(Faults(duplication=0.2))
    late = arrivals(Faults(delay=(0.1, 0.1), straggle=0.2, straggle_factor=50))

    assert 350 < len(lost) < 450
    assert 550 < len(doubled) < 650
    assert 50 < sum(when > 4 for when, _ in late) < 150


def test_what_liars_send_is_there_at_once() -> None:
    """A message sent at once arrives before any other, unharmed and in order."""
    arrived = arrivals(Faults(loss=0.9, delay=(1.0, 2.0)), at_once=True)

    assert arrived == [(0.0, number) for number in range(500)]


def delivered(network: Network, timeline: Timeline, *links: tuple[str, str]) -> list[str]:
    """Which of some messages arrive that are sent now."""
    arrived: list[str] = []
    for sender, receiver in links:
        words = f"{sender} to {receiver}"
        network.carry(sender, receiver, lambda words=words: arrived.append(words))  # type: ignore[misc]
    while timeline.advance():
        pass
    return sorted(arrived)


def test_a_full_queue_loses_the_newest() -> None:
    """Two wait for one peer, the third is lost; another peer's queue is another one."""
    timeline = Timeline()
    network = Network(timeline, Faults(queue=2, delay=(1.0, 1.0)), np.random.default_rng(1))
    arrived: list[int] = []
    for number in range(3):
        network.carry("w1", "s1", lambda n=number: arrived.append(n))  # type: ignore[misc]
    network.carry("w1", "s2", lambda: arrived.append(3))
    while timeline.advance():
        pass
    network.carry("w1", "s1", lambda: arrived.append(4))
    timeline.advance()

    assert arrived == [0, 1, 3, 4]
    assert network.lost == 1


def test_walls() -> None:
    """What a wall parts hears nothing of each other, or only those outside hear nothing."""
    links = (("s1", "s2"), ("s2", "s1"), ("s1", "w1"), ("w1", "s1"), ("s2", "w1"))
    timeline = Timeline()
    network = Network(timeline, Faults(delay=(0.01, 0.01)), np.random.default_rng(1))
    network.walls.append(Wall(frozenset({"s1", "w1"}), until=1.0))

    assert delivered(network, timeline, *links) == ["s1 to w1", "w1 to s1"]

    network.walls[:] = [Wall(frozenset({"s1", "w1"}), until=1.0, one_way=True)]
    heard = ["s1 to w1", "s2 to s1", "s2 to w1", "w1 to s1"]
    assert delivered(network, timeline, *links) == heard

    timeline.at(2.0, lambda: None)
    assert len(delivered(network, timeline)) == 0
    assert len(delivered(network, timeline, *links)) == 5, "it is down"


def test_a_slow_node_takes_longer_both_ways() -> None:
    """What it sends, what it receives, and nothing else."""
    timeline = Timeline()
    network = Network(timeline, Faults(delay=(1.0, 1.0)), np.random.default_rng(1))
    network.slowness["s1"] = 10.0
    times: dict[str, float] = {}
    for sender, receiver in (("s1", "s2"), ("s2", "s1"), ("s2", "s3")):
        words = f"{sender} to {receiver}"
        network.carry(sender, receiver, lambda words=words: times.update({words: timeline.now}))  # type: ignore[misc]
    while timeline.advance():
        pass

    assert times == {"s1 to s2": 10.0, "s2 to s1": 10.0, "s2 to s3": 1.0}


def test_the_network_calms_down() -> None:
    """After the end of the faults nothing is lost any more."""
    timeline = Timeline()
    network = Network(timeline, Faults(loss=1.0, until=1.0), np.random.default_rng(1))

    assert delivered(network, timeline, ("s1", "s2")) == []
    timeline.at(1.0, lambda: None)
    timeline.advance()
    assert delivered(network, timeline, ("s1", "s2")) == ["s1 to s2"]


def test_clocks() -> None:
    """A clock began anywhere, and is fast or slow; when it shows an instant is known."""
    clock = Clock(began=100.0, rate=0.5)

    assert clock.read(10.0) == 105.0
    assert clock.when(105.0) == 10.0


def test_a_name_proves_nothing() -> None:
    """A message is of the identity whose key was proved."""
    assert speaker("w1", routing_id="w3") == "w1"
