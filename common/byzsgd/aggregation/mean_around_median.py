"""The mean, in every coordinate, of the n - f values closest to the median."""

from collections.abc import Sequence

import numpy as np

from byzsgd.aggregation.middles import chunks, mean
from byzsgd.aggregation.mixture import Row
from byzsgd.aggregation.network import middle_network
from byzsgd.aggregation.rule import Bound, Rule, Vectors, checked_rows, result_vector
from byzsgd.vectors import Vector

BOUND = Bound("mean_around_median", 2, 1)


def mean_around_median(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Mean, in each coordinate, of the n - f values closest to its median.

    Bound: in a coordinate, pair each value that counts and is not one of n - f correct ones with a
    correct one that does not count; it is no farther from the median, so the two are at most twice
    the latter's distance apart. There are at most f pairs, and the median's own bound is known.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Invariant: does not depend on the order of the rows, bit for bit; of two values equally far
    from the median the smaller one counts; a zero is +0.0.
    Complexity: O(n log(n)^2 d) time; about 2 n chunks of memory beyond the result.
    Source: Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD" (mean around median).

    Example:
        >>> mean_around_median(np.float32([[1], [2], [4], [900]]), f=1)
        array([2.3333333], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    write_mean_of_closest(rows, len(rows) - f, result)
    return result


def write_mean_of_closest(rows: Sequence[Row], count: int, result: Vector) -> None:
    """Write the mean of the ``count`` values closest to the median of each coordinate.

    Raises:
        AggregationError: If a row is not finite.
    """
    n = len(rows)
    for values, scratch, target in chunks(middle_network(n, 0), rows, result):
        mean(values[(n - 1) // 2 : n // 2 + 1], scratch, target)
        # Those closest to the median are `count` neighbours in order, so exactly one of each class
        # of positions modulo `count`.
        closest = [_closest(values[k::count], target) for k in range(count)]
        mean(closest, scratch, target)


def _closest(values: Sequence[Vector], median: Vector) -> Vector:
    """The value closest to the median in each coordinate, of ascending ones."""
    closest = values[0]
    with np.errstate(over="ignore"):
        for further in values[1:]:
            closest = np.where(median - closest > further - median, further, closest)
    return closest


MEAN_AROUND_MEDIAN = Rule(
    name="mean_around_median",
    aggregate=mean_around_median,
    check=BOUND,
    kappa=lambda n, f: 8 * f * n / ((n - f) * (n - 2 * f)),
    kappa_formula="8 f n / ((n - f) (n - 2 f))",
    cost="O(n log(n)^2 d); 2 n chunks",
    use="As trimmed_mean; n - f values count instead of n - 2 f.",
    paper="Xie, Koyejo, Gupta, Generalized Byzantine-tolerant SGD, arXiv 2018",
)
