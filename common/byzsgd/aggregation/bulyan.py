"""Bulyan: Krum selects n - 2 f vectors, and what is closest to their median is averaged."""

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.distances import neighbour_sums, squared_distances
from byzsgd.aggregation.mean_around_median import write_mean_of_closest
from byzsgd.aggregation.rule import Bound, Rule, Vectors, checked_rows, result_vector
from byzsgd.vectors import Vector

BOUND = Bound("bulyan", 4, 3)


def bulyan(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Mean, in each coordinate, of the n - 4 f values closest to the median of n - 2 f rows.

    Krum selects those rows one after the other, each among the rest. Then a liar who agrees with
    the correct rows in all but one coordinate, which no distance shows, does not count there.

    Bound: of the selected rows at most f are Byzantine, so the median's bound holds with n - 2 f
    for n; and the values that count are on average no farther from it than the correct ones.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 4 f + 3``.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Invariant: ties take the lowest index, and the smaller value.
    Complexity: O(n^2 d + n^3 log n) time; about 2 n chunks and O(n^2) memory beyond the result.
    Source: El-Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning in
    Byzantium".

    Example:
        >>> bulyan(np.float32([[1], [3], [4], [5], [6], [8], [900]]), f=1)
        array([4.], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    selected = _selected(squared_distances(rows), f)
    write_mean_of_closest([rows[index] for index in selected], len(rows) - 4 * f, result)
    return result


def _selected(squared: NDArray[np.float64], f: int) -> list[int]:
    """The n - 2 f points, ascending, that win Krum one after the other, each among the rest."""
    rest = list(range(len(squared)))
    while len(rest) > 2 * f:
        # At least one neighbour, so that the last winner, among 2 f + 1, is one where f is 1.
        sums = neighbour_sums(squared[np.ix_(rest, rest)], max(len(rest) - f - 2, 1))
        del rest[int(sums.argmin())]
    return [index for index in range(len(squared)) if index not in rest]


BULYAN = Rule(
    name="bulyan",
    aggregate=bulyan,
    check=BOUND,
    kappa=lambda n, f: 16 * (n - f) / (n - 4 * f),
    kappa_formula="16 (n - f) / (n - 4 f)",
    cost="O(n^2 d + n^3 log n); 2 n chunks",
    use="Fewer than a quarter lie, and in few coordinates of long vectors.",
    paper="El-Mhamdi, Guerraoui, Rouault, The Hidden Vulnerability of Distributed Learning in "
    "Byzantium, ICML 2018",
)
