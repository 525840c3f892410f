"""Krum, against its definition in float64."""

import numpy as np
import pytest

from byzsgd.aggregation import krum, krum_subset


def scores(vectors: np.ndarray, f: int) -> np.ndarray:
    """Sum of squared distances to the n - f - 2 nearest others, in float64."""
    wide = vectors.astype(np.float64)
    n = len(wide)
    found = []
    for index, row in enumerate(wide):
        others = sorted(((row - wide[k]) ** 2).sum() for k in range(n) if k != index)
        found.append(sum(others[: n - f - 2]))
    return np.array(found)


@pytest.mark.parametrize("scale", [2.0**-100, 1.0, 2.0**60])
def test_the_first_row_of_smallest_score(scale: float) -> None:
    """On a lattice, full of ties, the winner is exactly the first row of smallest score."""
    chance = np.random.default_rng(1)
    for _ in range(500):
        n = int(chance.integers(3, 12))
        f = int(chance.integers(0, (n - 3) // 2 + 1))
        lattice = chance.integers(-2, 3, (n, int(chance.integers(1, 4))))
        vectors = (lattice * scale).astype(np.float32)
        winner = int(scores(vectors, f).argmin())

        assert krum_subset(vectors, f) == (winner,)
        np.testing.assert_array_equal(krum(vectors, f), vectors[winner])


def test_equal_rows_take_the_first() -> None:
    """Among equal rows, and equal scores, the lowest index wins."""
    assert krum_subset(np.ones((5, 3), np.float32), 1) == (0,)
    assert krum_subset(np.float32([[9], [1], [1], [1], [1]]), 1) == (1,)


def test_n_minus_f_minus_2_neighbours_count() -> None:
    """One neighbour more, or one less, would make another row win."""
    vectors = np.float32([[0], [1], [2], [4], [8]])

    # Two neighbours: 1 + 1 for the row at 1. With three the row at 2 wins, with one that at 0.
    assert krum_subset(vectors, 1) == (1,)
    assert krum_subset(vectors, 0) == (2,)


def test_distances_are_squared() -> None:
    """Distances themselves would make another row win: 1 + 5 < 3 + 4, but 1 + 25 > 9 + 16."""
    assert krum_subset(np.float32([[0], [1], [6], [9], [13]]), 1) == (3,)


@pytest.mark.parametrize("outlier", [1e3, 2e19, 3e38])
def test_far_liars_do_not_win(outlier: float) -> None:
    """Up to f rows that are far away, all at one place, are never returned."""
    chance = np.random.default_rng(2)
    for n, f in ((5, 1), (7, 2), (9, 3), (13, 5)):
        vectors = chance.standard_normal((n, 100), dtype=np.float32)
        liars = {int(index) for index in chance.permutation(n)[:f]}
        vectors[list(liars)] = outlier

        assert liars.isdisjoint(krum_subset(vectors, f))


def test_the_order_of_rows_does_not_matter_without_ties() -> None:
    """Any order of the rows returns the same row."""
    chance = np.random.default_rng(3)
    vectors = chance.standard_normal((9, 500), dtype=np.float32)
    expected = krum(vectors, 3).tobytes()
    for _ in range(50):
        assert krum(vectors[chance.permutation(9)], 3).tobytes() == expected
