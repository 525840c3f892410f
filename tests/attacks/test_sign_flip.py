"""The way back, and further."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.sign_flip import SignFlip


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_reversed_and_enlarged(scale: float, view: Callable[..., View]) -> None:
    """The lie is minus ``scale`` times the mean."""
    seen = view()
    lie = SignFlip(scale=scale).forge(seen, "s1")

    np.testing.assert_allclose(lie, -scale * np.mean(seen.vectors, 0), rtol=1e-6)


def test_two_of_seven_turn_an_average(view: Callable[..., View]) -> None:
    """Two liars among seven turn an average round with a scale above 2.5, and not below."""
    seen = view()
    mean = np.mean(seen.vectors, 0)
    turned = [
        float((5 * mean + 2 * SignFlip(scale=scale).forge(seen, "s1")) @ mean)
        for scale in (2.4, 2.6)
    ]

    assert turned[0] > 0 > turned[1]
