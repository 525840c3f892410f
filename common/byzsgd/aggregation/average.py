"""The plain mean of all vectors: the baseline without Byzantine nodes, and the control with."""

import math
from collections.abc import Sequence

import numpy as np

from byzsgd.aggregation import jit
from byzsgd.aggregation.rule import (
    Bound,
    Rule,
    Vectors,
    checked_rows,
    refuse_non_finite,
    result_vector,
)
from byzsgd.vectors import BLOCK, Vector

BOUND = Bound("average", 0, 1)
"""Whatever f: see ``average``."""


def average(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Mean of all rows, summed in their order.

    It tolerates f = 0 only: a single Byzantine row moves the result anywhere. It runs with f > 0
    all the same, because it is the control that an attack must break.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: Not used, but that it must not be negative.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row. Finite, also where the sum exceeds float32.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Complexity: O(n d) time; no memory beyond the result but a block.

    Example:
        >>> average(np.float32([[1], [2], [900]]), f=0)
        array([301.], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    if jit.run_mean(rows, result):
        return result
    for low in range(0, len(result), BLOCK):
        _average_block([row[low : low + BLOCK] for row in rows], result[low : low + BLOCK])
    return result


def _average_block(rows: Sequence[Vector], result: Vector) -> None:
    np.copyto(result, rows[0])
    with np.errstate(over="ignore", invalid="ignore"):
        for row in rows[1:]:
            np.add(result, row, out=result)
    if np.isfinite(result).all():
        np.divide(result, len(rows), out=result)
        return
    refuse_non_finite(rows)
    # Every row is finite, so the float32 sum overflowed; their mean is within float32 again.
    total = rows[0].astype(np.float64)
    for row in rows[1:]:
        total += row
    result[:] = total / len(rows)


AVERAGE = Rule(
    name="average",
    aggregate=average,
    check=BOUND,
    kappa=lambda _, f: math.inf if f else 0.0,
    kappa_formula="none; 0 where f = 0",
    cost="O(n d); a block",
    use="Nobody lies; the control that an attack must break.",
    paper="none",
)
