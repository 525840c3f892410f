"""The mean of what is left of every coordinate without its f smallest and f largest values."""

from byzsgd.aggregation.middles import write_mean
from byzsgd.aggregation.network import middle_network
from byzsgd.aggregation.rule import Bound, Rule, Vectors, checked_rows, result_vector
from byzsgd.vectors import Vector

BOUND = Bound("trimmed_mean", 2, 1)


def trimmed_mean(vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
    """Mean, in each coordinate, of all values but the f smallest and the f largest.

    In every coordinate the result lies between two correct rows.

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
    Source: Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards
    Optimal Statistical Rates"; for kappa Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan,
    "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity".

    Example:
        >>> trimmed_mean(np.float32([[1], [2], [4], [900]]), f=1)
        array([3.], dtype=float32)
    """
    rows = checked_rows(vectors, f, BOUND)
    result = result_vector(rows, out)
    write_mean(middle_network(len(rows), f), rows, result)
    return result


TRIMMED_MEAN = Rule(
    name="trimmed_mean",
    aggregate=trimmed_mean,
    check=BOUND,
    kappa=lambda n, f: 6 * f * (n - f) / (n - 2 * f) ** 2,
    kappa_formula="6 f (n - f) / (n - 2 f)^2",
    cost="O(n log(n)^2 d); n chunks",
    use="Gradients, after nnm: of the rules that average, the cheapest.",
    paper="Yin, Chen, Ramchandran, Bartlett, Byzantine-Robust Distributed Learning: Towards "
    "Optimal Statistical Rates, ICML 2018",
)
