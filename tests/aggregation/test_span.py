"""Weighted means of rows, known by their weights."""

import numpy as np
import pytest

from byzsgd.aggregation import AggregationError
from byzsgd.aggregation.span import BLOCK, spanned


@pytest.mark.parametrize("outlier", [0, 31, 33, 1e4, 1e18, 1e30])
@pytest.mark.parametrize("offset", [0, 1e3])
def test_distances_from_a_weighted_mean(outlier: float, offset: float) -> None:
    """They are right to five digits, near rows too, whatever a small weight has to balance."""
    chance = np.random.default_rng(1)
    vectors = chance.standard_normal((7, BLOCK + 5), dtype=np.float32) + np.float32(offset)
    vectors[6] += outlier * chance.standard_normal(BLOCK + 5).astype(np.float32)
    wide = vectors.astype(np.float64)
    weights = np.array([0.3, 0.1, 0.2, 0.25, 0.1, 0.05, 0.02 / max(outlier, 1)])
    weights /= weights.sum()
    expected = np.linalg.norm(wide - weights @ wide, axis=1)
    span = spanned(list(vectors))

    np.testing.assert_allclose(span.distances(weights), expected, rtol=1e-5)


def test_the_way_of_a_weighted_mean() -> None:
    """The norm of a change of weights is how far the mean moves."""
    vectors = np.random.default_rng(2).standard_normal((5, 50), dtype=np.float32)
    change = np.array([0.5, -0.2, -0.2, -0.1, 0])
    expected = np.linalg.norm(change @ vectors.astype(np.float64))

    assert spanned(list(vectors)).norm(change) == pytest.approx(expected, rel=1e-6)


def test_the_centre_is_amid_a_majority() -> None:
    """Of seven rows the one that reaches four within the smallest radius; the radius is that."""
    vectors = np.float32([[900], [901], [0], [2], [3], [5], [902]])
    span = spanned(list(vectors))

    assert span.centre == 3
    assert span.majority.tolist() == [2, 3, 4, 5]
    assert span.radius == 3


def test_rows_that_are_not_finite_are_refused() -> None:
    """They have no distances; they are named."""
    vectors = np.ones((3, 5), np.float32)
    vectors[1, 2] = np.inf

    with pytest.raises(AggregationError, match="row 1 has a coordinate that is not finite"):
        spanned(list(vectors))
