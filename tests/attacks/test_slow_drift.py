"""Models a little further away in every step."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.slow_drift import SlowDrift
from byzsgd.cluster import Role


def test_one_way_and_ever_further(view: Callable[..., View]) -> None:
    """The lies of all steps lie on one line, each the same way further from the mean."""
    seen = view(role=Role.SERVER)
    mean = np.mean(seen.vectors, 0)
    away = [
        SlowDrift(rate=0.1).forge(replace(seen, step=step, seed=(1, step, 0)), "s1") - mean
        for step in (0, 1, 9)
    ]

    assert np.linalg.norm(away[0]) == pytest.approx(0.1 * np.linalg.norm(mean), rel=1e-4)
    np.testing.assert_allclose(away[1], 2 * away[0], atol=1e-4)
    np.testing.assert_allclose(away[2], 10 * away[0], atol=1e-4)
