"""What was true at the start."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from byzsgd.attacks import View
from byzsgd.attacks.stale import Stale


def test_the_first_mean(view: Callable[..., View]) -> None:
    """The lie is the mean of the first vectors that were seen, or of these where none were."""
    seen = view()

    np.testing.assert_allclose(Stale().forge(seen, "s1"), np.mean(seen.first, 0), rtol=1e-6)
    np.testing.assert_allclose(
        Stale().forge(replace(seen, first=()), "s1"), np.mean(seen.vectors, 0), rtol=1e-6
    )
