"""Rows that are weighted sums of others, computed when a block of them is read."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation import jit
from byzsgd.vectors import Vector

BLOCK = 1 << 14
"""Coordinates of a mixture written at once: 64 KiB a row."""

WEIGHT_MIN = 2.0**-60
"""Weights below this count in float64: times a large row they may matter, and float32's product
with a small one would vanish."""

LARGEST = float(np.finfo(np.float32).max)


class Mixture:
    """A weighted sum of rows, which can be sliced like a row.

    So what pre-steps make of vectors needs no memory but the block that is being read.
    """

    __slots__ = ("_equal", "_narrow", "_rows", "_weights")

    def __init__(self, rows: Sequence["Row"], weights: NDArray[np.float64]) -> None:
        """A mixture of ``rows``.

        Args:
            rows: n rows of equal length, finite; those of weight 0 are never read.
            weights: ``(n,)`` float64, none negative, of a sum of at most 1.
        """
        used = np.flatnonzero(weights) if weights.any() else np.array([0])
        self._rows = [rows[index] for index in used]
        self._weights = weights[used]
        self._equal = bool((self._weights == self._weights[0]).all())
        self._narrow = bool(self._weights.min() >= WEIGHT_MIN)

    def __len__(self) -> int:
        return len(self._rows[0])

    def __getitem__(self, where: slice) -> Vector:
        """A new array of these coordinates, finite for finite rows."""
        parts = [row[where] for row in self._rows]
        if self._narrow:
            with np.errstate(over="ignore", invalid="ignore"):
                block = self._sum(parts, np.dtype(np.float32))
            if np.isfinite(block).all():
                return block
        return self._sum(parts, np.dtype(np.float64)).clip(-LARGEST, LARGEST).astype(np.float32)

    def _sum(self, parts: Sequence[Vector], kind: np.dtype[np.floating]) -> NDArray[np.floating]:
        weights = self._weights.astype(kind)
        total = parts[0].astype(kind)
        if self._equal:  # Then one multiplication will do.
            for part in parts[1:]:
                total += part
            total *= weights[0]
            return total
        total *= weights[0]
        product = np.empty_like(total)
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            np.multiply(part, weight, out=product)
            total += product
        return total

    def write(self, result: Vector) -> None:
        """Write all of it to a vector: compiled code does it, or NumPy, block by block."""
        if self._narrow and not self._equal:
            weights = self._weights.astype(np.float32)
            if jit.run_weighted(self._rows, weights, result):
                return
        for low in range(0, len(result), BLOCK):
            result[low : low + BLOCK] = self[low : low + BLOCK]


Row: TypeAlias = Vector | Mixture
"""What a rule reads block by block: a vector that was handed in, or a mixture of such."""
