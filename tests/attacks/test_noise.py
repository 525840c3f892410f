"""Noise that has nothing to do with the correct vectors."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.noise import Random


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_length_and_direction(scale: float, view: Callable[..., View]) -> None:
    """The lie is ``scale`` times as long as the mean and points anywhere."""
    seen = view(d=4000)
    mean = np.mean(seen.vectors, 0)
    lie = Random(scale=scale).forge(seen, "s1")
    cosine = lie @ mean / np.linalg.norm(lie) / np.linalg.norm(mean)

    assert np.linalg.norm(lie) == pytest.approx(scale * np.linalg.norm(mean), rel=1e-4)
    assert abs(cosine) < 0.1


def test_another_step_is_another_throw(view: Callable[..., View]) -> None:
    """The dice fall differently in every step."""
    seen = view()
    later = replace(seen, seed=(1, 4, 1))

    assert not np.allclose(Random().forge(seen, "s1"), Random().forge(later, "s1"))
