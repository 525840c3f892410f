"""Distances between all pairs of rows."""

import numpy as np
import pytest

from byzsgd.aggregation.distances import BLOCK, nearest, neighbour_sums, squared_distances
from byzsgd.aggregation.rule import AggregationError


def exact(vectors: np.ndarray) -> np.ndarray:
    """Squared distances in float64, pair by pair."""
    wide = vectors.astype(np.float64)
    return np.array([[((a - b) ** 2).sum() for b in wide] for a in wide])


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


@pytest.mark.parametrize("d", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 11])
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-25, 1e-12, 1e-3, 1, 1e12, 1e18, 1e25, 1e37])
def test_right_at_every_scale(d: int, scale: float) -> None:
    """From the smallest normal number to near the largest, distances are right to six digits."""
    vectors = gaussian(5, d) * np.float32(scale)

    np.testing.assert_allclose(squared_distances(list(vectors)), exact(vectors), rtol=2e-6)


def test_the_largest_and_the_smallest_differences() -> None:
    """Differences beyond float32, and between neighbouring subnormal numbers, are right."""
    largest, smallest = np.finfo(np.float32).max, np.float32(1e-45)
    vectors = np.float32([[largest], [-largest], [0], [smallest]])
    squared = squared_distances(list(vectors))

    np.testing.assert_array_equal(squared, exact(vectors))
    assert squared[2, 3] > 0


def test_an_overflow_in_one_block_leaves_the_others_right() -> None:
    """A block that overflows, one that vanishes and an ordinary one add up."""
    vectors = gaussian(4, 3 * BLOCK)
    vectors[:, :BLOCK] *= 1e-25
    vectors[1, BLOCK : 2 * BLOCK] *= 1e22

    np.testing.assert_allclose(squared_distances(list(vectors)), exact(vectors), rtol=1e-6)


def test_a_common_offset_costs_nothing() -> None:
    """Rows that share an offset of 1e4 keep the distances that their float32 values have."""
    vectors = gaussian(6, 50_000) * np.float32(1e-2) + np.float32(1e4)

    np.testing.assert_allclose(squared_distances(list(vectors)), exact(vectors), rtol=1e-6)


def test_many_coordinates_do_not_blur_the_order() -> None:
    """Distances of independent rows, a thousandth apart, keep their order at d = 200,000."""
    vectors = gaussian(12, 200_000)
    pairs = np.triu_indices(12, 1)
    found, expected = squared_distances(list(vectors))[pairs], exact(vectors)[pairs]

    np.testing.assert_allclose(found, expected, rtol=1e-7)
    np.testing.assert_array_equal(np.argsort(found), np.argsort(expected))


def test_symmetric_with_an_exact_zero_diagonal() -> None:
    """The matrix equals its transpose, and a row and its copies are at distance exactly 0."""
    vectors = gaussian(6, 30_000)
    vectors[4] = vectors[1]
    squared = squared_distances(list(vectors))

    np.testing.assert_array_equal(squared, squared.T)
    assert (np.diag(squared) == 0).all()
    assert squared[1, 4] == 0
    assert np.count_nonzero(squared == 0) == 8


def test_an_entry_depends_on_its_two_rows_alone() -> None:
    """The order of the rows, and how many others there are, changes no bit of a distance."""
    chance = np.random.default_rng(1)
    vectors = gaussian(9, 20_001)
    squared = squared_distances(list(vectors))
    for size in (2, 3, 9):
        for _ in range(10):
            chosen = chance.permutation(9)[:size]
            np.testing.assert_array_equal(
                squared_distances(list(vectors[chosen])), squared[np.ix_(chosen, chosen)]
            )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused(value: float) -> None:
    """A row that is not finite has no distances; it is named."""
    vectors = gaussian(3, 2 * BLOCK)
    vectors[1, BLOCK + 1] = value

    with pytest.raises(AggregationError, match="row 1 has a coordinate that is not finite"):
        squared_distances(list(vectors))


def test_one_row_alone() -> None:
    """It is at distance 0 from itself, and must be finite too."""
    assert squared_distances([np.float32([1, 2])]).tolist() == [[0]]
    with pytest.raises(AggregationError, match="row 0 has a coordinate that is not finite"):
        squared_distances([np.float32([1, np.nan])])


def test_neighbours() -> None:
    """The nearest count in order, a point itself is no neighbour, and ties take the lowest."""
    squared = exact(np.float32([[0], [1], [2], [5]]))

    assert neighbour_sums(squared, 2).tolist() == [1 + 4, 1 + 1, 1 + 4, 9 + 16]
    assert neighbour_sums(squared, 0).tolist() == [0, 0, 0, 0]
    assert nearest(squared, 1, 2).tolist() == [0, 1]
    assert nearest(squared, 2, 3).tolist() == [0, 1, 2]
