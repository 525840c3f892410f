"""The plain mean."""

import numpy as np
import pytest

from byzsgd.aggregation import average


@pytest.mark.parametrize("n", [1, 2, 3, 10, 33])
def test_the_mean_of_all_rows(n: int) -> None:
    """The average is the mean of the rows up to float32 rounding."""
    vectors = np.random.default_rng(n).standard_normal((n, 70_001), dtype=np.float32)

    np.testing.assert_allclose(
        average(vectors, 0), vectors.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-6
    )


def test_rows_are_summed_in_their_order() -> None:
    """The sum runs from the first row to the last: rounding tells."""
    vectors = np.float32([[2.0**25], [1], [-(2.0**25)], [1]])

    assert average(vectors, 0) == [0.25]


def test_sums_beyond_float32() -> None:
    """Rows whose sum exceeds float32 have the mean that float64 gives, and their block alone."""
    largest = np.finfo(np.float32).max
    vectors = np.ones((3, 140_000), np.float32)
    vectors[:, 70_000] = largest
    vectors[:, 70_001] = largest, largest, -largest
    vectors[:, 70_002] = -3e38
    mean = average(vectors, 0)

    assert mean[70_000] == largest
    assert mean[70_001] == np.float32(float(largest) / 3)
    assert mean[70_002] == np.float32(-3e38)
    assert (np.delete(mean, [70_000, 70_001, 70_002]) == 1).all()


def test_one_liar_moves_it_anywhere() -> None:
    """The average runs with f > 0 and then tolerates nothing: it is the control."""
    vectors = np.ones((10, 3), np.float32)
    vectors[9] = 1e30

    assert (average(vectors, 3) > 1e28).all()
