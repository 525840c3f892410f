"""The median of every coordinate by itself: how models are aggregated."""

from byzsgd.aggregation.middles import write_mean
from byzsgd.aggregation.network import median_network
from byzsgd.aggregation.rule import Bound, Rule, Vectors, checked_rows, result_vector
from byzsgd.vectors import Vector

BOUND = Bound("coordinate_median", 2, 1)


def coordinate_median(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Median of each coordinate; an even count takes the mean of the two middles.

    In every coordinate the result lies between two correct rows, as long as fewer than half of
    the rows are Byzantine. The lower middle instead of the mean would stop gathers from
    contracting.

    Bound: for any n - f correct rows of mean m, at least n / 2 - f of them are, in a coordinate, on
    the far side of the result seen from m; so (n / 2 - f) times the squared distance of the two is
    at most n - f times their variance.

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
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    write_mean(median_network(len(rows)), rows, result)
    return result


COORDINATE_MEDIAN = Rule(
    name="coordinate_median",
    aggregate=coordinate_median,
    check=BOUND,
    kappa=lambda n, f: 2 * (n - f) / (n - 2 * f),
    kappa_formula="2 (n - f) / (n - 2 f)",
    cost="O(n log(n)^2 d); n chunks",
    use="Models, always; gradients where single coordinates are attacked.",
    paper="Yin, Chen, Ramchandran, Bartlett, Byzantine-Robust Distributed Learning: Towards "
    "Optimal Statistical Rates, ICML 2018",
)
