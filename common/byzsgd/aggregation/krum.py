"""Krum: the one vector that is closest to its nearest neighbours."""

import numpy as np

from byzsgd.aggregation.distances import squared_distances
from byzsgd.aggregation.rule import Rule, Vectors, checked_rows, result_vector, shortfall
from byzsgd.vectors import Vector


def krum(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Copy of the row with the smallest sum of squared distances to its n - f - 2 nearest rows.

    The result is one row, so it keeps the variance of a single gradient, where MDA averages n - f.

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
    rows = checked_rows(vectors, f, check)
    result = result_vector(rows, out)
    (winner,) = krum_subset(rows, f)
    np.copyto(result, rows[winner])
    return result


def krum_subset(vectors: Vectors, f: int) -> tuple[int]:
    """Index of the row that ``krum`` returns.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 3``.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.
    """
    rows = checked_rows(vectors, f, check)
    # Sorted, so that equal sets of distances have equal sums; the first is a row's own, zero.
    nearest = np.sort(squared_distances(rows), axis=1)[:, 1 : len(rows) - f - 1]
    return (int(nearest.sum(axis=1).argmin()),)


def check(n: int, f: int) -> str | None:
    """None, or why n vectors are too few for f Byzantine ones among them."""
    return shortfall("krum", "2 f + 3", n, 2 * f + 3)


KRUM = Rule(name="krum", aggregate=krum, check=check, select=krum_subset)
