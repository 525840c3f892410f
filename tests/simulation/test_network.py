"""Virtual time, and a network whose dice are seeded."""

import numpy as np

from byzsgd.simulation import Faults
from byzsgd.simulation.network import Network, Timeline


def arrivals(faults: Faults, *, at_once: bool = False) -> list[tuple[float, int]]:
    """When each of 500 messages of one moment arrives."""
    timeline = Timeline()
    network = Network(timeline, faults, np.random.default_rng(1))
    arrived: list[tuple[float, int]] = []
    for number in range(500):
        network.carry(lambda n=number: arrived.append((timeline.now, n)), at_once=at_once)  # type: ignore[misc]
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
