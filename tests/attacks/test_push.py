"""Models from further back."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.push import Push
from byzsgd.cluster import Role


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_against_the_last_step(scale: float, view: Callable[..., View]) -> None:
    """The lie is away from the mean in the direction that training came from, as far as said."""
    seen = view(role=Role.SERVER)
    mean = np.mean(seen.vectors, 0)
    away = Push(scale=scale).forge(seen, "s1") - mean
    back = seen.past(1) - mean

    assert np.linalg.norm(away) == pytest.approx(scale * np.linalg.norm(mean), rel=1e-4)
    assert away @ back == pytest.approx(np.linalg.norm(away) * np.linalg.norm(back), rel=1e-4)


def test_before_training_has_gone_anywhere(view: Callable[..., View]) -> None:
    """In the first step there is no way back, so the lie is nearer to zero than the mean."""
    seen = view(role=Role.SERVER)
    seen = replace(seen, first=seen.vectors, past=lambda age: seen.mean())
    lie = Push(scale=0.5).forge(seen, "s1")

    np.testing.assert_allclose(lie, np.mean(seen.vectors, 0) / 2, atol=1e-5)
