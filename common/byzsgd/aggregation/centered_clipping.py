"""Centered clipping: a centre, moved by all vectors, by each no farther than a radius."""

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.mixture import Mixture
from byzsgd.aggregation.rule import Bound, Rule, Vectors, checked_rows, result_vector
from byzsgd.aggregation.span import Span, spanned
from byzsgd.vectors import Vector

BOUND = Bound("centered_clipping", 2, 1)

TOLERANCE = 1e-7
"""The iteration ends once it moves by less than this many radii..."""

ITERATIONS_MAX = 1000
"""...or after so many rounds: about a hundredth of a second for ten vectors."""


def centered_clipping(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """The point from which all rows, clipped to the distance of the n - f nearest, balance out.

    In the paper the centre is the last step's result and the radius a number to be tuned. Without
    memory and numbers: the centre begins at the row around which a majority is closest, the radius
    is the (n - f)-th smallest distance from the centre, and it moves until it stands still.

    Bound: let e be the distance of the centre from the mean of any n - f correct rows, all within
    R of that mean. One round leaves f / n (2 e + R) of it: at most f correct rows are clipped, and
    liars move the centre by at most f radii over n. So e ends at f R / (n - 2 f).

    Args:
        vectors: ``(n, d)`` float32 or n rows of ``(d,)``, ordered by identity, finite.
        f: At most this many rows are Byzantine; ``n >= 2 f + 1``.
        out: ``(d,)`` float32 to write the result to, or None for a new vector.

    Returns:
        ``(d,)`` float32, never an alias of a row.

    Raises:
        AggregationError: If the contract of ``byzsgd.aggregation`` is violated.

    Complexity: O(n^2 d) time, and O(n^2) for an iteration; O(n^2) memory beyond the result.
    Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization".

    Example:
        >>> centered_clipping(np.float32([[1], [2], [3], [900]]), f=1).round(3)
        array([2.5], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    Mixture(rows, _weights(spanned(rows), f)).write(result)
    return result


def _weights(span: Span, f: int) -> NDArray[np.float64]:
    """Where the centre ends, as a weighted mean of the rows."""
    n = len(span.products)
    weights = np.zeros(n)
    weights[span.centre] = 1
    for _ in range(ITERATIONS_MAX):
        distances = span.distances(weights)
        radius = np.partition(distances, n - f - 1)[n - f - 1]
        shares = np.ones(n)
        np.divide(radius, distances, out=shares, where=distances > radius)
        before, weights = weights, weights * (1 - shares.sum() / n) + shares / n
        if span.norm(weights - before) <= TOLERANCE * radius:
            break
    return weights


CENTERED_CLIPPING = Rule(
    name="centered_clipping",
    aggregate=centered_clipping,
    check=BOUND,
    kappa=lambda n, f: f**2 * (n - f) / (n - 2 * f) ** 2,
    kappa_formula="f^2 (n - f) / (n - 2 f)^2",
    cost="O(n^2 d); n blocks",
    use="Gradients: nobody is left out, nobody weighs much.",
    paper="Karimireddy, He, Jaggi, Learning from History for Byzantine Robust Optimization, "
    "ICML 2021",
)
