"""Minimum-diameter averaging, against trying every subset in float64."""

from itertools import combinations

import numpy as np
import pytest

from byzsgd.aggregation import mda, mda_subset
from byzsgd.aggregation.mda import smallest_diameter_subset

LARGEST = np.finfo(np.float32).max


def exact(vectors: np.ndarray) -> np.ndarray:
    """Squared distances in float64."""
    wide = vectors.astype(np.float64)
    return ((wide[:, None] - wide[None]) ** 2).sum(axis=2)


def diameters(squared: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """All subsets of a size in lexicographic order, and the square of each one's diameter."""
    subsets = np.array(list(combinations(range(len(squared)), size)))
    return subsets, squared[subsets[:, :, None], subsets[:, None, :]].max(axis=(1, 2))


def first_best(squared: np.ndarray, size: int) -> tuple[int, ...]:
    """What trying every subset in lexicographic order finds."""
    subsets, squares = diameters(squared, size)
    return tuple(int(index) for index in subsets[squares.argmin()])


def some_n_and_f(chance: np.random.Generator) -> tuple[int, int]:
    n = int(chance.integers(2, 10))
    return n, int(chance.integers(0, (n - 1) // 2 + 1))


# The selection by itself


@pytest.mark.parametrize("kind", ["metric", "lattice", "graph", "ranks", "clusters"])
def test_any_matrix_of_distances(kind: str) -> None:
    """The subset is the first in lexicographic order of smallest diameter, for any size."""
    chance = np.random.default_rng(1)
    for _ in range(1000):
        n = int(chance.integers(1, 10))
        squared = {
            "metric": lambda n=n: exact(chance.standard_normal((n, 3))),
            "lattice": lambda n=n: exact(chance.integers(0, 3, (n, 2))),
            "graph": lambda n=n: chance.integers(1, 3, (n, n)).astype(float),
            "ranks": lambda n=n: chance.permutation(n * n).reshape(n, n) + 1.0,
            "clusters": lambda n=n: exact(
                chance.choice([0, 1, 10], (n, 1)) + 0.1 * chance.integers(0, 2, (n, 2))
            ),
        }[kind]()
        squared = np.triu(squared, 1)
        squared += squared.T
        size = int(chance.integers(1, n + 1))

        assert smallest_diameter_subset(squared, size) == first_best(squared, size)


@pytest.mark.parametrize(("n", "f"), [(30, 10), (67, 33), (100, 33)])
def test_a_hundred_vectors(n: int, f: int) -> None:
    """Where subsets are too many to try, the known best one is found among independent rows."""
    chance = np.random.default_rng(n)
    vectors = chance.standard_normal((n, 50))
    best = np.sort(chance.permutation(n)[: n - f])
    vectors[best] *= 0.05

    assert smallest_diameter_subset(exact(vectors), n - f) == tuple(best)


def test_more_vectors_than_can_be_tried() -> None:
    """Independent rows, n = 40: no single exchange of a selected row makes the subset smaller."""
    squared = exact(np.random.default_rng(3).standard_normal((40, 30)))
    chosen = smallest_diameter_subset(squared, 27)
    diameter = squared[np.ix_(chosen, chosen)].max()
    others = [index for index in range(40) if index not in chosen]

    for leaving in chosen:
        kept = [index for index in chosen if index != leaving]
        for joining in others:
            swapped = [*kept, joining]
            assert squared[np.ix_(swapped, swapped)].max() >= diameter


# Vectors


@pytest.mark.parametrize("scale", [2.0**-145, 2.0**-100, 2.0**-60, 1.0, 2.0**60, 2.0**100])
@pytest.mark.parametrize("offset", [0, 2.0**12])
def test_ties_take_the_first_index_set(scale: float, offset: float) -> None:
    """On a lattice, full of ties and duplicates, the subset is exactly the first of the best."""
    chance = np.random.default_rng(2)
    for _ in range(300):
        n, f = some_n_and_f(chance)
        lattice = chance.integers(-2, 3, (n, int(chance.integers(1, 4))))
        vectors = ((lattice + offset) * scale).astype(np.float32)

        assert mda_subset(vectors, f) == first_best(exact(vectors), n - f)


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(1, 0), (1e-25, 0), (1e-30, 0), (1e-38, 0), (1e18, 0), (1e25, 0), (1e38, 0), (1e-2, 1e4)],
)
@pytest.mark.parametrize("outlier", [None, 1.0, 1e25, 3e38])
def test_random_rows_with_outliers(scale: float, offset: float, outlier: float | None) -> None:
    """Whatever the scale, offset and outliers, the diameter is the smallest to six digits."""
    chance = np.random.default_rng(3)
    for _ in range(60):
        n, f = some_n_and_f(chance)
        d = int(chance.integers(1, 6))
        # Clipped, so that 1e38 stays within float32.
        gaussian = chance.standard_normal((n, d)).clip(-3, 3)
        vectors = (gaussian * scale + offset).astype(np.float32)
        if outlier is not None:
            vectors[chance.permutation(n)[:f]] = outlier * chance.choice([-1, 1], d)
        if chance.random() < 0.3:
            vectors[n - 1] = vectors[0]
        subsets, squares = diameters(exact(vectors), n - f)
        chosen = list(mda_subset(vectors, f))
        found = squares[(subsets == chosen).all(axis=1)].item()
        near_ties = np.count_nonzero(squares <= squares.min() * (1 + 1e-5))

        assert found <= squares.min() * (1 + 1e-5)
        if near_ties == 1:
            assert tuple(chosen) == first_best(exact(vectors), n - f)


@pytest.mark.parametrize("outlier", [2e19, 2e20, 2e30, 3e38])
def test_far_liars_are_left_out(outlier: float) -> None:
    """Up to f rows that are far away do not touch the result, together or apart."""
    chance = np.random.default_rng(4)
    for n, f in ((3, 1), (7, 2), (10, 3), (9, 4)):
        vectors = chance.standard_normal((n, 100), dtype=np.float32)
        liars = sorted(int(index) for index in chance.permutation(n)[:f])
        vectors[liars] = outlier
        vectors[liars[0]] *= -1
        correct = np.delete(vectors, liars, axis=0)

        assert set(mda_subset(vectors, f)).isdisjoint(liars)
        np.testing.assert_allclose(mda(vectors, f), correct.mean(axis=0), atol=1e-6)


def test_the_result_is_near_the_mean_of_correct_rows() -> None:
    """The result is within 2 f / (n - f) diameters of correct rows from their mean."""
    chance = np.random.default_rng(5)
    closest = np.inf
    for _ in range(2000):
        n, f = some_n_and_f(chance)
        vectors = chance.standard_normal((n, int(chance.integers(1, 4)))).astype(np.float32)
        liars = chance.permutation(n)[:f]
        # Just outside the correct rows, where a lie does the most.
        vectors[liars] = chance.uniform(0, 4) * chance.choice([-1, 1], vectors.shape[1])
        correct = np.delete(vectors, liars, axis=0).astype(np.float64)
        diameter = np.sqrt(exact(correct).max())
        bound = 2 * f / (n - f) * diameter
        away = np.linalg.norm(mda(vectors, f) - correct.mean(axis=0))
        if f:
            closest = min(closest, bound - away)

        assert away <= bound + 1e-5
    assert closest < 0.5  # The drill came near the bound: it is no empty promise.


def test_the_order_of_rows_does_not_matter_without_ties() -> None:
    """Any order of the rows selects the same rows."""
    chance = np.random.default_rng(6)
    vectors = chance.standard_normal((9, 500), dtype=np.float32)
    expected = set(mda_subset(vectors, 3))
    for _ in range(50):
        order = chance.permutation(9)

        assert {int(order[index]) for index in mda_subset(vectors[order], 3)} == expected


def test_equal_rows() -> None:
    """Equal rows are a tie of all subsets: the first wins, and the result is the row."""
    vectors = np.full((7, 50_000), 0.1, np.float32)

    assert mda_subset(vectors, 3) == (0, 1, 2, 3)
    np.testing.assert_allclose(mda(vectors, 3), vectors[0], rtol=1e-6)


def test_without_liars_it_is_the_average() -> None:
    """With f = 0 every row is selected."""
    vectors = np.random.default_rng(7).standard_normal((4, 10), dtype=np.float32)

    assert mda_subset(vectors, 0) == (0, 1, 2, 3)
    np.testing.assert_allclose(mda(vectors, 0), vectors.mean(axis=0), rtol=1e-6, atol=1e-7)


def test_means_near_the_largest_number() -> None:
    """The mean of selected rows near the largest number is finite and right."""
    vectors = np.float32([[LARGEST], [LARGEST], [3.3e38], [-LARGEST]])

    np.testing.assert_allclose(mda(vectors, 1), [(2 * float(LARGEST) + 3.3e38) / 3], rtol=1e-6)
