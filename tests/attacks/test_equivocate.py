"""Opposite lies to different receivers."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.alie import Alie
from byzsgd.attacks.equivocate import Equivocate
from byzsgd.cluster import Role


@pytest.mark.parametrize("scale", [0.5, 1.0, 30.0])
def test_neighbours_hear_opposite_models(scale: float, view: Callable[..., View]) -> None:
    """The lies of two neighbours are as far from the mean as its scale says, on opposite sides."""
    seen = view(role=Role.SERVER)
    mean = np.mean(seen.vectors, 0)
    one, two, three, four = (
        Equivocate(scale=scale).forge(seen, receiver) for receiver in seen.receivers
    )

    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(two, four)
    np.testing.assert_allclose((one + two) / 2, mean, atol=1e-4)
    assert np.linalg.norm(one - mean) == pytest.approx(scale * np.linalg.norm(mean), rel=1e-4)


def test_neighbours_hear_opposite_gradients(view: Callable[..., View]) -> None:
    """Half the servers hear ALIE one way, the other half ALIE the other way."""
    seen = view()
    lies = [Equivocate(scale=1.2).forge(seen, server) for server in seen.receivers]

    for lie, sign in zip(lies, (1, -1, 1, -1), strict=True):
        np.testing.assert_array_equal(lie, Alie(z=1.2, sign=sign).forge(seen, "s1"))
