"""Not a number."""

from collections.abc import Callable

import numpy as np

from byzsgd.attacks import View
from byzsgd.attacks.nan import NotANumber


def test_every_coordinate(view: Callable[..., View]) -> None:
    """Every coordinate of the lie is NaN."""
    assert np.isnan(NotANumber().forge(view(), "s1")).all()
