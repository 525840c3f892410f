"""MDA: Minimum-Diameter Averaging."""

from itertools import combinations

import numpy as np
import pytest

from byzsgd.aggregation import AggregationError, mda, mda_subset
from byzsgd.protocol import Aggregate
from byzsgd.protocol.variance import Condition
from byzsgd.protocol.work import aggregate


def diameter(vectors: np.ndarray, subset: tuple[int, ...]) -> float:
    """The largest pairwise Euclidean distance inside a subset."""
    pairs = combinations(subset, 2)
    return max(float(np.linalg.norm(vectors[a] - vectors[b])) for a, b in pairs)


def test_n_must_be_large_enough() -> None:
    """Given n vectors, of which at most f are Byzantine, n >= 2 f + 1."""
    mda(np.zeros((5, 2), np.float32), f=2)

    with pytest.raises(AggregationError, match=r"n >= 2 f \+ 1"):
        mda(np.zeros((4, 2), np.float32), f=2)


def test_the_subset_of_smallest_diameter() -> None:
    """Among all subsets of size n - f, take one of the smallest diameter. Exact."""
    chance = np.random.default_rng(1)
    for _ in range(20):
        vectors = chance.standard_normal((7, 3)).astype(np.float32)
        subset = mda_subset(vectors, 2)
        best = min(diameter(vectors, other) for other in combinations(range(7), 5))

        assert len(subset) == 5
        assert diameter(vectors, subset) == pytest.approx(best)


def test_its_mean() -> None:
    """And return its mean."""
    vectors = np.float32([[1, 0], [3, 2], [900, 900], [2, 1]])

    assert mda(vectors, f=1).tolist() == [2, 1]


def test_ties() -> None:
    """Ties in MDA take the lexicographically smallest index set."""
    assert mda_subset(np.float32([[0], [10], [20]]), 1) == (0, 1)
    assert mda_subset(np.float32([[5], [0], [1], [2], [3]]), 2) == (1, 2, 3)


def test_the_variance_condition_is_a_metric() -> None:
    """Left side over right side is estimated from the selected gradients; above 1, no promise."""

    def ratio(spread: float) -> float:
        gradients = tuple(np.float32([value]) for value in (1 - spread, 1 + spread, 1, 900))
        effect = Aggregate(
            0, "mda", ("w1", "w2", "w3", "w4"), gradients, 1, np.zeros(1, np.float32), 1.0
        )
        condition = Condition()
        condition.update(0, aggregate(effect).report.spread)
        assert condition.ratio is not None
        return condition.ratio

    assert ratio(0.1) < 1 < ratio(3)
