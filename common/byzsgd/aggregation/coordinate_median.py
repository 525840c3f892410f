"""The median of every coordinate by itself: how models are aggregated."""

from collections.abc import Sequence

import numpy as np

from byzsgd.aggregation import jit
from byzsgd.aggregation.network import Network, median_network
from byzsgd.aggregation.rule import (
    Rule,
    Vectors,
    checked_rows,
    refuse_non_finite,
    result_vector,
    shortfall,
)
from byzsgd.vectors import Vector

CHUNK = 1 << 15
"""Coordinates handled at once: 128 KiB a register. Smaller ones pay for NumPy's calls, larger
ones leave the core's cache."""


def coordinate_median(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Median of each coordinate; an even count takes the mean of the two middles.

    In every coordinate the result lies between two correct rows, as long as fewer than half of
    the rows are Byzantine. The lower middle instead of the mean would stop gathers from
    contracting.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Invariant: does not depend on the order of the rows, bit for bit; a zero is +0.0.
    Complexity: O(n log(n)^2 d) time; about n chunks of memory beyond the result.
    Source: El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine
    Machine Learning" (M).

    Example:
        >>> coordinate_median(np.float32([[1], [2], [4], [900]]), f=1)
        array([3.], dtype=float32)
    """
    rows = checked_rows(vectors, f, check)
    result = result_vector(rows, out)
    network = median_network(len(rows))
    if not jit.run(network, rows, result):
        _run(network, rows, result)
    return result


def check(n: int, f: int) -> str | None:
    """None, or why n vectors are too few for f Byzantine ones among them."""
    return shortfall("coordinate_median", "2 f + 1", n, 2 * f + 1)


def _run(network: Network, rows: Sequence[Vector], result: Vector) -> None:
    """Run a network on all coordinates, chunk by chunk: what ``jit.run`` does, in plain NumPy."""
    width = min(CHUNK, len(result))
    scratch = np.empty((network.registers - len(rows) + 1, width), np.float32)
    for low in range(0, len(result), width):
        target = result[low : low + width]
        registers = [row[low : low + width] for row in rows]
        refuse_non_finite(registers)
        registers += [buffer[: len(target)] for buffer in scratch]
        for minimum, left, right, to in network.operations:
            extremum = np.minimum if minimum else np.maximum
            extremum(registers[left], registers[right], out=registers[to])
        _mean([registers[middle] for middle in network.middles], registers[-1], target)


def _mean(middles: Sequence[Vector], scratch: Vector, target: Vector) -> None:
    """Mean of one or two middles, which are left as they are: they may be rows."""
    if len(middles) == 1:
        np.add(middles[0], 0.0, out=target)
    else:
        # Halves first: the sum of two middles may exceed float32.
        np.multiply(middles[0], 0.5, out=scratch)
        np.multiply(middles[1], 0.5, out=target)
        np.add(target, scratch, out=target)
        # Which of -0.0 and +0.0 counts as the smaller differs between CPUs.
        np.add(target, 0.0, out=target)


COORDINATE_MEDIAN = Rule(name="coordinate_median", aggregate=coordinate_median, check=check)
