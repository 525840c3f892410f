"""Lies that are one number in every coordinate: zero, infinity, and the largest."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import Attack, View
from byzsgd.attacks.huge import Huge
from byzsgd.attacks.infinite import Infinite
from byzsgd.attacks.zero import Zero


@pytest.mark.parametrize(
    ("attack", "value"),
    [(Zero(), 0.0), (Infinite(), np.inf), (Huge(), 3e38), (Huge(value=-1e30), -1e30)],
)
def test_every_coordinate(attack: Attack, value: float, view: Callable[..., View]) -> None:
    """Every coordinate of the lie is the attack's number."""
    lie = attack.forge(view(), "s1")

    np.testing.assert_array_equal(lie, np.full(40, value, np.float32))


def test_huge_is_valid(view: Callable[..., View]) -> None:
    """The huge number is finite, so that it counts; twice as much is not."""
    lie = Huge().forge(view(), "s1")

    assert np.isfinite(lie).all()
    with np.errstate(over="ignore"):
        assert not np.isfinite(lie + lie).any()
