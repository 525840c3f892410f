"""Minimum-diameter averaging: how gradients are aggregated."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.average import average
from byzsgd.aggregation.cover import bits, vertex_cover
from byzsgd.aggregation.distances import squared_distances
from byzsgd.aggregation.rule import (
    Bound,
    Rule,
    Vectors,
    checked_rows,
    every_row,
    result_vector,
)
from byzsgd.vectors import Vector

BOUND = Bound("mda", 2, 1)


def mda(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Mean of a subset of n - f vectors of smallest diameter, found exactly.

    The diameter of a subset is its largest pairwise Euclidean distance. Why exact: an approximate
    subset voids the bound that the convergence proof uses.

    Bound: for any n - f correct rows C, the result is at most 2 f / (n - f) * diameter(C) away
    from their mean. The selected rows S and C share a row, for n >= 2 f + 1, and each of the at
    most f rows that S has instead of rows of C is within diameter(S) <= diameter(C) of it.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Invariant: ties take the lexicographically smallest index set.
    Complexity: O(n^2 d) time for the distances, plus the search; O(n^2) memory beyond the result.
    Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine
    Machine Learning" (MDA).

    Example:
        >>> mda(np.float32([[1], [2], [900]]), f=1)
        array([1.5], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    return average([rows[index] for index in mda_subset(rows, f)], 0, out=result)


def mda_subset(vectors: Vectors, f: int) -> tuple[int, ...]:
    """Indices, ascending, of the n - f rows that ``mda`` returns the mean of.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.
    """
    if f == 0:
        return every_row(checked_rows(vectors, f, BOUND))
    subset, _ = mda_selection(vectors, f)
    return subset


def mda_selection(vectors: Vectors, f: int) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """What ``mda_subset`` returns, and the distances that it is chosen by, for who tells of them.

    Args:
        vectors: As for ``mda_subset``.
        f: As there; all distances are computed, also for 0.

    Returns:
        The indices, and ``(n, n)`` float64: squared distances between all rows.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.
    """
    rows = checked_rows(vectors, f, BOUND)
    squared = squared_distances(rows)
    return smallest_diameter_subset(squared, len(rows) - f), squared


def smallest_diameter_subset(squared: NDArray[np.float64], size: int) -> tuple[int, ...]:
    """The lexicographically first of the subsets of ``size`` points of smallest diameter.

    Args:
        squared: ``(n, n)`` float64, squared distances: symmetric, finite, zeros on the diagonal.
        size: How many points; between 1 and n.

    Returns:
        Their indices, ascending.

    A binary search over the distances that the diameter may be; each is decided by a vertex cover
    of the pairs that are farther apart.
    """
    n = len(squared)
    everyone = (1 << n) - 1
    diameters = np.unique(squared)
    # radii[i]: how far point i has to reach for `size` points, itself among them. In a subset of
    # smallest diameter no point reaches farther than that diameter, and one ball is a subset.
    radii = np.partition(squared, size - 1, axis=1)[:, size - 1]
    ball = np.argsort(squared[radii.argmin()], kind="stable")[:size]
    low = int(np.searchsorted(diameters, np.partition(radii, size - 1)[size - 1]))
    high = int(np.searchsorted(diameters, squared[np.ix_(ball, ball)].max()))
    subset = sum(1 << int(index) for index in ball)
    while low < high:
        middle = (low + high) // 2
        left_out = vertex_cover(_farther(squared, diameters[middle]), everyone, n - size)
        if left_out is None:
            low = middle + 1
        else:
            high, subset = middle, everyone & ~left_out
    return _first_subset(_farther(squared, diameters[low]), size, subset)


def _farther(squared: NDArray[np.float64], limit: float) -> list[int]:
    """For each point, the set of points farther from it than a limit."""
    packed = np.packbits(squared > limit, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _first_subset(far: Sequence[int], size: int, witness: int) -> tuple[int, ...]:
    """The lexicographically first ``size`` points without a far pair among them.

    Args:
        far: For each point, the set of points far from it.
        size: How many points.
        witness: At least ``size`` points without a far pair: a proof that there is a solution.
    """
    chosen = 0
    undecided = (1 << len(far)) - 1
    budget = len(far) - size
    for point in range(len(far)):
        itself = 1 << point
        if not undecided & itself:
            continue
        undecided ^= itself
        excluded = far[point] & undecided
        if not witness & itself:
            # Not in the solution known so far: is there one with it?
            left_out = vertex_cover(far, undecided & ~excluded, budget - excluded.bit_count())
            if left_out is None:
                budget -= 1
                continue
            witness = chosen | itself | undecided & ~excluded & ~left_out
        chosen |= itself
        undecided &= ~excluded
        budget -= excluded.bit_count()
    return tuple(bits(chosen))[:size]


MDA = Rule(
    name="mda",
    aggregate=mda,
    check=BOUND,
    # The bound above, for the square of a diameter is at most 2 (n - f) times the variance.
    kappa=lambda n, f: 8 * f**2 / (n - f),
    kappa_formula="8 f^2 / (n - f)",
    cost="O(n^2 d) and the search; n blocks",
    use="Gradients, by default: it is the rule of ByzSGD's proof.",
    paper="El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, Genuinely Distributed Byzantine Machine "
    "Learning, PODC 2020",
    select=mda_subset,
)
