"""Weighted means of rows, known by their weights: rules that iterate never touch the rows.

A point ``x_c + sum of w_i (x_i - x_c)``, with x_c one of the rows and weights w of sum 1, has all
its distances in the inner products of the differences ``x_i - x_c``. So after one pass over the
rows an iteration costs O(n^2), and what it ends with is written once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.distances import nearest, squared_distances
from byzsgd.aggregation.mixture import Row

FAR = 32.0
"""Radii beyond which a row's inner products are not taken from distances: what two nearly equal
distances differ by, and with it the direction of a far row, drowns in their rounding."""

BLOCK = 1 << 13
"""Coordinates handled at once where inner products are computed: 64 KiB of float64 a row."""


@dataclass(frozen=True, slots=True)
class Span:
    """Inner products of n rows' differences from one of them, around which a majority lies."""

    centre: int
    """The row that reaches a majority of the rows within the smallest radius."""
    majority: NDArray[np.intp]
    """The rows within that radius: more than half of all."""
    radius: float
    """The Euclidean distance of the farthest of them from the centre."""
    products: NDArray[np.float64]
    """``(n, n)``: the inner products."""

    def distances(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Euclidean distance of every row from the rows' weighted mean.

        Args:
            weights: ``(n,)`` float64 of sum 1.
        """
        along = self.products @ weights
        squared = self.products.diagonal() - 2 * along + weights @ along
        return np.sqrt(np.maximum(squared, 0.0))

    def norm(self, change: NDArray[np.float64]) -> float:
        """How far a weighted mean moves if its weights change, by ``(n,)`` float64 of sum 0."""
        return math.sqrt(max(float(change @ self.products @ change), 0.0))


def spanned(rows: Sequence[Row]) -> Span:
    """The span of n rows, after one pass over them; a second one if some are very far.

    Raises:
        AggregationError: If a row is not finite.
    """
    squared = squared_distances(rows)
    size = len(rows) // 2 + 1
    reach = np.partition(squared, size - 1, axis=1)[:, size - 1]
    centre = int(reach.argmin())
    away = squared[centre]
    products = (away[:, None] + away - squared) / 2
    far = np.flatnonzero(away > FAR**2 * reach[centre])
    if len(far):
        exact = _products(rows, centre, far)
        products[far], products[:, far] = exact, exact.T
    return Span(centre, nearest(squared, centre, size), math.sqrt(reach[centre]), products)


def _products(rows: Sequence[Row], centre: int, some: NDArray[np.intp]) -> NDArray[np.float64]:
    """Inner products of some rows' differences from the centre with all rows', in float64."""
    total = np.zeros((len(some), len(rows)))
    for low in range(0, len(rows[0]), BLOCK):
        block = np.array([row[low : low + BLOCK] for row in rows], np.float64)
        block -= block[centre].copy()
        total += block[some] @ block.T
    return total
