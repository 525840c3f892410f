"""MoNNA: the mean of the n - f vectors nearest to a trusted one."""

from byzsgd.aggregation.average import average
from byzsgd.aggregation.distances import nearest, neighbour_sums, squared_distances
from byzsgd.aggregation.rule import (
    Bound,
    Rule,
    Vectors,
    checked_rows,
    every_row,
    result_vector,
)
from byzsgd.vectors import Vector

BOUND = Bound("monna", 2, 1)


def monna(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Mean of the n - f rows nearest to the row that has the nearest neighbours.

    In the paper a node trusts its own vector. A server has none, so here the row with the smallest
    sum of squared distances to its n - f - 1 nearest rows is trusted: unlike Krum, which leaves out
    one more, it needs no more rows than MDA.

    Bound: let V be the sum of the squared distances of any n - f correct rows from their mean. The
    trusted row's sum is at most 2 V, so its squared distance from that mean is at most
    6 V / (n - 2 f), as in ``krum``; and the nearest rows differ from the correct ones in at most f.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Invariant: ties take the lowest index.
    Complexity: O(n^2 d) time; O(n^2) memory beyond the result.
    Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, "Robust Collaborative Learning
    with Linear Gradient Overhead" (MoNNA).

    Example:
        >>> monna(np.float32([[1], [2], [4], [5], [900]]), f=1)
        array([3.], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    return average([rows[index] for index in monna_subset(rows, f)], 0, out=result)


def monna_subset(vectors: Vectors, f: int) -> tuple[int, ...]:
    """Indices, ascending, of the n - f rows that ``monna`` returns the mean of.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.
    """
    rows = checked_rows(vectors, f, BOUND)
    if f == 0:
        return every_row(rows)
    squared = squared_distances(rows)
    size = len(rows) - f
    trusted = int(neighbour_sums(squared, size - 1).argmin())
    return tuple(int(index) for index in nearest(squared, trusted, size))


MONNA = Rule(
    name="monna",
    aggregate=monna,
    check=BOUND,
    kappa=lambda n, f: 2 * f / (n - f) * (5 + 12 * f / (n - 2 * f)),
    kappa_formula="2 f / (n - f) (5 + 12 f / (n - 2 f))",
    cost="O(n^2 d); n blocks",
    use="Gradients, in place of multi_krum where n < 2 f + 3.",
    paper="Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, Robust Collaborative Learning "
    "with Linear Gradient Overhead, ICML 2023",
    select=monna_subset,
)
