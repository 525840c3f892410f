"""When servers gather, and how long a learning step is."""

from collections.abc import Callable
from typing import Any

import pytest

from byzsgd.protocol.schedule import Gathers, learning_rate

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("period", "gathers"),
    [(1, [1, 2, 3, 4, 5, 6, 7]), (2, [2, 4, 6]), (3, [3, 6]), (7, [7]), (8, [])],
)
def test_a_gather_comes_before_every_multiple_of_the_period(
    period: int, gathers: list[int]
) -> None:
    """Servers gather theta_{t+1} whenever (t + 1) mod T = 0; theta_0 is equal everywhere."""
    assert [step for step in range(8) if step in Gathers(period, n_servers=5)] == gathers


@pytest.mark.parametrize(("period", "step", "after"), [(1, 0, 1), (1, 6, 7), (3, 2, 3), (3, 3, 6)])
def test_the_first_gather_after_a_step(period: int, step: int, after: int) -> None:
    """A gather step itself is not after itself."""
    assert Gathers(period, n_servers=5).after(step) == after


def test_a_lone_server_never_gathers() -> None:
    """There is nobody to exchange models with."""
    assert not [step for step in range(10) if step in Gathers(1, n_servers=1)]


def test_a_constant_learning_rate(cluster: Make) -> None:
    """Without a decay eta_t is eta in every step."""
    constant = cluster(learning_rate=0.25)

    assert [learning_rate(constant, step) for step in (0, 1, 10**9)] == [0.25, 0.25, 0.25]


def test_a_decaying_learning_rate(cluster: Make) -> None:
    """With a decay of tau steps eta_t is eta / (1 + t / tau)."""
    decaying = cluster(learning_rate=0.6, learning_rate_decay_steps=10)

    rates = [learning_rate(decaying, step) for step in (0, 5, 10, 20)]

    assert rates == pytest.approx([0.6, 0.4, 0.3, 0.2])
