"""A little is enough: lies within the spread of the correct gradients."""

from collections.abc import Callable

import numpy as np
import pytest

from byzsgd.attacks import View
from byzsgd.attacks.alie import Alie


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("z", [0.0, 1.5])
def test_standard_deviations_from_the_mean(
    z: float, ddof: int, sign: int, view: Callable[..., View]
) -> None:
    """The lie is z standard deviations below the mean in every coordinate, or above it."""
    seen = view()
    wide = np.array(seen.vectors, np.float64)
    lie = Alie(z=z, ddof=ddof, sign=sign).forge(seen, "s1")

    np.testing.assert_allclose(lie, wide.mean(0) + sign * z * wide.std(0, ddof=ddof), atol=1e-5)


def test_the_default_goes_below(view: Callable[..., View]) -> None:
    """Unless its sign says otherwise, the lie is below the mean, as in the paper."""
    seen = view()

    assert (Alie().forge(seen, "s1") < np.mean(seen.vectors, 0)).all()


def test_of_one_vector_no_deviation(view: Callable[..., View]) -> None:
    """Where a single gradient was seen, the lie is that gradient."""
    seen = view(correct=1)

    np.testing.assert_array_equal(Alie(ddof=1).forge(seen, "s1"), seen.vectors[0])
