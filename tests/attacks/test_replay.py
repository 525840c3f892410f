"""What was true some steps ago."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.replay import Replay


@pytest.mark.parametrize("age", [1, 20])
def test_the_mean_of_that_step(age: int, view: Callable[..., View]) -> None:
    """The lie is the mean of as many steps ago as its age, and the liars remember as many."""
    seen = view()

    np.testing.assert_array_equal(Replay(age=age).forge(seen, "s1"), seen.past(age))
    assert Replay(age=age).history == age


def test_nothing_is_ahead_of_its_time(view: Callable[..., View]) -> None:
    """An age below 0 is taken for 0: what will be said is not known."""
    seen = view()

    np.testing.assert_array_equal(Replay(age=-3).forge(seen, "s1"), seen.past(0))
