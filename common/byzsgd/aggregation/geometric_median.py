"""The geometric median: the point whose distances to all vectors add up to the least."""

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.mixture import Mixture
from byzsgd.aggregation.rule import Bound, Rule, Vectors, checked_rows, result_vector
from byzsgd.aggregation.span import Span, spanned
from byzsgd.vectors import Vector

BOUND = Bound("geometric_median", 2, 1)

SMOOTHING = 1e-6
"""Distances below this many radii count as this much, so that no weight is infinite."""

TOLERANCE = 1e-7
"""The iteration ends once it moves by less than this many radii..."""

ITERATIONS_MAX = 1000
"""...or after so many rounds: about a hundredth of a second for ten vectors."""


def geometric_median(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """The point of least sum of distances to all rows, by the smoothed Weiszfeld algorithm.

    Bound: were the point farther from the mean m of n - f correct rows than 2 / (n - 2 f) times
    the sum of their distances from m, then m would have the smaller sum of distances.

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``. Nothing else depends on it.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Invariant: if more than half of the rows are equal, the result is that row.
    Complexity: O(n^2 d) time, and O(n^2) for an iteration; O(n^2) memory beyond the result.
    Source: Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning"; for kappa
    Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing".

    Example:
        >>> geometric_median(np.float32([[1], [2], [900]]), f=1).round(3)
        array([2.], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    Mixture(rows, _weights(spanned(rows))).write(result)
    return result


def _weights(span: Span) -> NDArray[np.float64]:
    """The median as a weighted mean of the rows."""
    weights = np.zeros(len(span.products))
    if span.radius == 0:
        weights[span.centre] = 1
        return weights
    # From the middle of a majority: liars do not say where to begin, and it is seldom a row.
    weights[span.majority] = 1 / len(span.majority)
    for _ in range(ITERATIONS_MAX):
        nearness = 1 / np.maximum(span.distances(weights), SMOOTHING * span.radius)
        before, weights = weights, nearness / nearness.sum()
        if span.norm(weights - before) <= TOLERANCE * span.radius:
            break
    return weights


GEOMETRIC_MEDIAN = Rule(
    name="geometric_median",
    aggregate=geometric_median,
    check=BOUND,
    kappa=lambda n, f: 4 * (n - f) ** 2 / (n - 2 * f) ** 2,
    kappa_formula="4 (n - f)^2 / (n - 2 f)^2",
    cost="O(n^2 d); n blocks",
    use="Nobody knows f: it does not depend on it.",
    paper="Pillutla, Kakade, Harchaoui, Robust Aggregation for Federated Learning, IEEE "
    "Transactions on Signal Processing 2022",
)
