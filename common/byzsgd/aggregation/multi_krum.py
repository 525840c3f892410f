"""Multi-Krum: the mean of the n - f vectors that are closest to their nearest neighbours."""

import numpy as np

from byzsgd.aggregation.average import average
from byzsgd.aggregation.distances import squared_distances
from byzsgd.aggregation.krum import scores
from byzsgd.aggregation.rule import (
    Bound,
    Rule,
    Vectors,
    checked_rows,
    every_row,
    result_vector,
)
from byzsgd.vectors import Vector

BOUND = Bound("multi_krum", 2, 3)


def multi_krum(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Mean of the n - f rows with the smallest scores; Krum's score, see ``krum``.

    The authors leave open how many rows to average. All n - f have the least variance, and a bound:

    Bound: the scores of the n - f selected rows S add up to no more than those of any n - f correct
    rows C, so what ``krum`` says of the winner holds on average in S. The means of S and C differ
    by at most f rows of each, divided by n - f.

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
        >>> multi_krum(np.float32([[1], [2], [4], [5], [900]]), f=1)
        array([3.], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    return average([rows[index] for index in multi_krum_subset(rows, f)], 0, out=result)


def multi_krum_subset(vectors: Vectors, f: int) -> tuple[int, ...]:
    """Indices, ascending, of the n - f rows that ``multi_krum`` returns the mean of.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 3``.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.
    """
    rows = checked_rows(vectors, f, BOUND)
    if f == 0:
        return every_row(rows)
    best = np.argsort(scores(squared_distances(rows), f), kind="stable")[: len(rows) - f]
    return tuple(sorted(int(index) for index in best))


MULTI_KRUM = Rule(
    name="multi_krum",
    aggregate=multi_krum,
    check=BOUND,
    kappa=lambda n, f: 2 * f / (n - f) * (1 + 6 * (n - f) / (n - 2 * f - 1)),
    kappa_formula="2 f / (n - f) (1 + 6 (n - f) / (n - 2 f - 1))",
    cost="O(n^2 d); n blocks",
    use="As mda, without its search, whose time has no bound.",
    paper="Blanchard, El-Mhamdi, Guerraoui, Stainer, Machine Learning with Adversaries: Byzantine "
    "Tolerant Gradient Descent, NeurIPS 2017",
    select=multi_krum_subset,
)
