"""Krum: the one vector that is closest to its nearest neighbours."""

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.distances import neighbour_sums, squared_distances
from byzsgd.aggregation.rule import Bound, Rule, Vectors, checked_rows, result_vector
from byzsgd.vectors import BLOCK, Vector

BOUND = Bound("krum", 2, 3)


def krum(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Copy of the row with the smallest sum of squared distances to its n - f - 2 nearest rows.

    The result is one row, so it keeps the variance of a single gradient, where MDA averages n - f.

    Bound: let V be the sum of the squared distances of any n - f correct rows from their mean. One
    of them scores at most 2 V, so the winner does. Of the winner and its neighbours at least
    n - 2 f - 1 are correct, so its squared distance from that mean is at most
    (3 + 2 sqrt(2)) V / (n - 2 f - 1).

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 3``.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Invariant: ties take the lowest index.
    Complexity: O(n^2 d) time; O(n^2) memory beyond the result.
    Source: Blanchard, El-Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries:
    Byzantine Tolerant Gradient Descent".

    Example:
        >>> krum(np.float32([[1], [2], [4], [5], [900]]), f=1)
        array([2.], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    (winner,) = krum_subset(rows, f)
    for low in range(0, len(result), BLOCK):
        result[low : low + BLOCK] = rows[winner][low : low + BLOCK]
    return result


def krum_subset(vectors: Vectors, f: int) -> tuple[int]:
    """Index of the row that ``krum`` returns.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 3``.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.
    """
    rows = checked_rows(vectors, f, BOUND)
    return (int(scores(squared_distances(rows), f).argmin()),)


def scores(squared: NDArray[np.float64], f: int) -> NDArray[np.float64]:
    """Sums of each point's squared distances to its n - f - 2 nearest others; the less the better.

    Args:
        squared: ``(n, n)`` float64, squared distances.
        f: At most this many points are Byzantine.
    """
    return neighbour_sums(squared, len(squared) - f - 2)


KRUM = Rule(
    name="krum",
    aggregate=krum,
    check=BOUND,
    kappa=lambda n, f: 6 * (n - f) / (n - 2 * f - 1),
    kappa_formula="6 (n - f) / (n - 2 f - 1)",
    cost="O(n^2 d); n blocks",
    use="To compare with; multi_krum averages more.",
    paper="Blanchard, El-Mhamdi, Guerraoui, Stainer, Machine Learning with Adversaries: Byzantine "
    "Tolerant Gradient Descent, NeurIPS 2017",
    select=krum_subset,
)
