"""Distances between all pairs of vectors, right at every scale."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation import jit, tiles
from byzsgd.aggregation.jit import LANES
from byzsgd.aggregation.mixture import Row
from byzsgd.aggregation.rule import refuse_non_finite
from byzsgd.vectors import SQUARE_MAX, SQUARE_MIN, Vector

BLOCK = 1 << 10
"""Coordinates whose squares are added up in float32: 4 KiB a row."""

STACK = 4
"""Blocks that NumPy handles at once: fewer would pay for its calls, more leave the core's cache."""

FEW = 1 << 13
"""The same where all is left to NumPy: few enough that no BLAS starts threads for them."""

CHUNK = 64
"""Blocks that compiled code handles in a call; their sums are added up first."""


def squared_distances(rows: Sequence[Row]) -> NDArray[np.float64]:
    """Squared Euclidean distances between all pairs of rows: symmetric, zeros on the diagonal.

    By direct differences: |a|^2 + |b|^2 - 2 ab loses everything where rows share an offset, and
    lets whoever adds one choose the winner. Float32 inside a block, float64 across blocks.

    Args:
        rows: n rows of length d.

    Returns:
        ``(n, n)`` float64, of the right scale also where float32 squares overflow or vanish. An
        entry depends on its two rows alone, bit for bit: on every machine from
        ``COORDINATES_MIN`` of ``jit`` on, and below on machines of one kind.

    Raises:
        AggregationError: If a row is not finite.

    Complexity: O(n^2 d) time; some blocks a row of memory.
    """
    n, d = len(rows), len(rows[0])
    if n == 1:
        refuse_non_finite(rows)
        return np.zeros((1, 1))
    if d < jit.COORDINATES_MIN:
        return _of_few(rows)
    vectors = jit.contiguous(rows)
    kernel = None if vectors is None else tiles.compiled(n, BLOCK)
    addresses = None if vectors is None else jit.addresses(vectors)
    # Where i >= j nothing is written: a one is in range.
    squares = np.ones((min(CHUNK, -(-d // BLOCK)), n, n))
    total = np.zeros((n, n))
    stack = Stack(n, d if kernel is None else BLOCK)  # Compiled code leaves one block at most.
    with np.errstate(over="ignore", invalid="ignore"):
        for low in range(0, d, CHUNK * BLOCK):
            length = min(CHUNK * BLOCK, d - low)
            found = squares[: -(-length // BLOCK)]
            done = 0
            if kernel is not None and length >= BLOCK:
                done = length // BLOCK
                kernel(addresses, low, done, found.ctypes.data)
            for first in range(done, len(found), stack.blocks):
                begin = low + first * BLOCK
                end = min(begin + stack.blocks * BLOCK, low + length)
                stack.write([row[begin:end] for row in rows], found[first : first + stack.blocks])
            if not (found.min() > SQUARE_MIN and found.max() < SQUARE_MAX):
                _redo_out_of_range([row[low : low + length] for row in rows], found, BLOCK)
            total += np.add.reduce(found, axis=0)
    return _symmetric(total[_pairs(n)], rows)


def _symmetric(upper: NDArray[np.float64], rows: Sequence[Row]) -> NDArray[np.float64]:
    """The matrix of what all pairs have, in the order of ``_pairs``; refuses what is not finite."""
    if not np.isfinite(upper).all():
        refuse_non_finite(rows)
    left, right = _pairs(len(rows))
    squared = np.zeros((len(rows), len(rows)))
    squared[left, right] = squared[right, left] = upper
    return squared


def _of_few(rows: Sequence[Row]) -> NDArray[np.float64]:
    """The distances of rows that no compiled code is made for: NumPy's fastest way."""
    n, d = len(rows), len(rows[0])
    width = min(FEW, d)
    scratch = np.empty((2, n, width), np.float32)
    squares = np.empty(n * (n - 1) // 2, np.float32)
    total = np.zeros(len(squares))
    with np.errstate(over="ignore", invalid="ignore"):
        for low in range(0, d, width):
            block, difference = scratch[:, :, : d - low]
            for index, row in enumerate(rows):
                block[index] = row[low : low + width]
            done = 0
            for lag in range(1, n):
                count = n - lag
                apart = difference[:count]
                np.subtract(block[lag:], block[:count], out=apart)
                np.vecdot(apart, apart, out=squares[done : done + count])
                done += count
            if squares.min() > SQUARE_MIN and squares.max() < SQUARE_MAX:
                total += squares
            else:
                found = np.ones((1, n, n))
                found[:, *_pairs(n)] = squares
                _redo_out_of_range(list(block), found, len(block[0]))
                total += found[0][_pairs(n)]
    return _symmetric(total, rows)


@cache
def _pairs(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every i, and its j > i: the pairs of n rows, neighbours first."""
    lags = range(1, n)
    left = np.concatenate([np.arange(n - lag) for lag in lags])
    return left, left + np.repeat(lags, [n - lag for lag in lags])


class Stack:
    """NumPy's path: scratch for sums of squared differences of all pairs of n rows.

    In a block each of ``LANES`` sums takes every ``LANES``-th coordinate, in order; then the upper
    half of the sums is added to the lower, until one is left. Whatever computes a distance does
    this, ``tiles`` too, so that all have the same bits.
    """

    __slots__ = ("_difference", "_padded", "_rows", "_sums", "blocks")

    def __init__(self, n: int, d: int) -> None:
        """Scratch for n rows of length d; at least two rows."""
        self.blocks = min(STACK, -(-d // BLOCK))
        """How many blocks it can handle at once."""
        # Zeros to the end of a block would change nothing: a short row is padded to full lanes.
        steps = -(-min(d, BLOCK) // LANES)
        # Of a step, what NumPy handles in one go: ``LANES`` coordinates of all rows and blocks.
        self._rows = np.empty((steps, n, self.blocks, LANES), np.float32)
        self._difference = np.empty(self._rows.size, np.float32)
        self._sums = np.empty((n * (n - 1) // 2, self.blocks * LANES), np.float32)
        self._padded = np.empty(steps * self.blocks * LANES, np.float32)

    def write(self, parts: Sequence[Vector], squares: NDArray[np.float64]) -> None:
        """Write the sum of squared differences in every block, of all pairs of rows.

        Args:
            parts: Of each row the coordinates of at most ``blocks`` blocks, the last one maybe
                cut short.
            squares: ``(blocks, n, n)``: where i < j it is written to, and left as it is elsewhere.
        """
        steps, n, blocks = self._rows.shape[:3]
        for index, part in enumerate(parts):
            if (length := len(part)) < len(self._padded):
                self._padded[:length], self._padded[length:] = part, 0
                part = self._padded
            self._rows[:, index] = part.reshape(blocks, steps, LANES).swapaxes(0, 1)
        done = 0
        for lag in range(1, n):
            count = n - lag
            width = count * blocks * LANES
            difference = self._difference[: steps * width].reshape(steps, count, blocks, LANES)
            np.subtract(self._rows[:, lag:], self._rows[:, :count], out=difference)
            np.multiply(difference, difference, out=difference)
            sums = self._sums[done : done + count].reshape(width)
            np.add.reduce(difference.reshape(steps, width), axis=0, out=sums)
            done += count
        folded = self._sums.reshape(-1, blocks, LANES)
        while folded.shape[2] > 1:
            half = folded.shape[2] // 2
            folded = folded[:, :, :half] + folded[:, :, half:]
        left, right = _pairs(n)
        squares[:, left, right] = folded[:, : len(squares), 0].T


def _redo_out_of_range(parts: Sequence[Vector], squares: NDArray[np.float64], width: int) -> None:
    """Do again in float64, which holds every square of a float32, what float32 did not hold."""
    wrong = np.triu(~((squares > SQUARE_MIN) & (squares < SQUARE_MAX)), 1)
    for i, j in np.argwhere(wrong.any(axis=0)):
        if np.array_equal(parts[i], parts[j]):
            continue  # And zero is what was found: liars send the same, and do not cost more.
        for block in np.flatnonzero(wrong[:, i, j]):
            where = slice(block * width, (block + 1) * width)
            wide = parts[j][where].astype(np.float64) - parts[i][where]
            squares[block, i, j] = np.square(wide).sum()


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
