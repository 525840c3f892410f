"""Fall of empires."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.empire import Empire


@pytest.mark.parametrize("eps", [0.1, 1.1, 10.0])
def test_a_step_backwards(eps: float, view: Callable[..., View]) -> None:
    """The lie is minus epsilon times the mean of the correct gradients."""
    seen = view()
    lie = Empire(eps=eps).forge(seen, "s1")

    np.testing.assert_allclose(lie, -eps * np.mean(seen.vectors, 0), rtol=1e-6)
