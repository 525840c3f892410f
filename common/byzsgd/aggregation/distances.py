"""Distances between all pairs of vectors, right at every scale."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.mixture import Row
from byzsgd.aggregation.rule import refuse_non_finite
from byzsgd.vectors import SQUARE_MAX, SQUARE_MIN

BLOCK = 1 << 13
"""Coordinates handled at once: 32 KiB a row, few enough that no BLAS starts threads for them."""


def squared_distances(rows: Sequence[Row]) -> NDArray[np.float64]:
    """Squared Euclidean distances between all pairs of rows: symmetric, zeros on the diagonal.

    By direct differences: |a|^2 + |b|^2 - 2 ab loses everything where rows share an offset, and
    lets whoever adds one choose the winner. Float32 inside a block, float64 across blocks.

    Args:
        rows: n rows of length d.

    Returns:
        ``(n, n)`` float64, of the right scale also where float32 squares overflow or vanish. An
        entry depends on its two rows alone, bit for bit on machines of one kind; between kinds of
        CPU it may differ in about the seventh digit.

    Raises:
        AggregationError: If a row is not finite.

    Complexity: O(n^2 d) time; two blocks a row of memory.
    """
    n, d = len(rows), len(rows[0])
    width = min(BLOCK, d)
    scratch = np.empty((2, n, width), np.float32)
    squares = np.zeros((n, n), np.float64)
    total = np.zeros((n, n), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for low in range(0, d, width):
            block, difference = scratch[:, :, : d - low]
            for index, row in enumerate(rows):
                block[index] = row[low : low + width]
            for index in range(n - 1):
                later = difference[index + 1 :]
                np.subtract(block[index + 1 :], block[index], out=later)
                np.vecdot(later, later, out=squares[index, index + 1 :])
            _redo_out_of_range(block, squares)
            total += squares
    if n == 1 or not np.isfinite(total).all():
        refuse_non_finite(rows)
    return total + total.T


def _redo_out_of_range(block: NDArray[np.float32], squares: NDArray[np.float64]) -> None:
    """Do again in float64, which holds every square of a float32, what float32 did not hold."""
    right = (squares > SQUARE_MIN) & (squares < SQUARE_MAX)
    for i, j in np.argwhere(np.triu(~right, 1)):
        wide = block[j].astype(np.float64) - block[i]
        squares[i, j] = wide @ wide


def neighbour_sums(squared: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Sum of each point's squared distances to its nearest others.

    Args:
        squared: ``(n, n)`` float64, squared distances.
        count: How many others count.

    Returns:
        ``(n,)`` float64.
    """
    # Sorted, so that equal sets of distances have equal sums; the first is a point's own, zero.
    sums: NDArray[np.float64] = np.sort(squared, axis=1)[:, 1 : count + 1].sum(axis=1)
    return sums


def nearest(squared: NDArray[np.float64], point: int, count: int) -> NDArray[np.intp]:
    """Indices, ascending, of the points nearest to one, itself included; ties take the lowest."""
    return np.sort(np.argsort(squared[point], kind="stable")[:count])
