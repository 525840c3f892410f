"""What correct nodes say, many times as loud."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.scaled import Scaled


@pytest.mark.parametrize("factor", [100.0, -100.0, 0.5])
def test_times_a_factor(factor: float, view: Callable[..., View]) -> None:
    """The lie is the mean of the correct vectors times the factor."""
    seen = view()

    np.testing.assert_allclose(
        Scaled(factor=factor).forge(seen, "s1"), factor * np.mean(seen.vectors, 0), rtol=1e-6
    )


def test_the_default_runs_back(view: Callable[..., View]) -> None:
    """Unless its factor says otherwise, the lie is the mean reversed, a hundred times as long."""
    seen = view()

    assert Scaled().forge(seen, "s1") @ np.mean(seen.vectors, 0) < 0
