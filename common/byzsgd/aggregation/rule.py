"""What every aggregation rule shares: its shape, and the checks of what it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from byzsgd.aggregation.mixture import Mixture, Row
from byzsgd.vectors import Vector, is_finite, is_vector

Vectors: TypeAlias = NDArray[np.float32] | Sequence[Vector] | Sequence[Row]
"""``(n, d)`` float32, or n rows of ``(d,)`` float32: one row a vote, ordered by identity."""

Kappa: TypeAlias = Callable[[int, int], float]
"""From n and f to a rule's coefficient of robustness; see ``Rule.kappa``."""


class AggregationError(ValueError):
    """Vectors, f or out that a rule refuses; the text names what is wrong and where."""


class AggregateFunction(Protocol):
    """A rule as a plain function."""

    def __call__(self, vectors: Vectors, f: int, *, out: Vector | None = None) -> Vector:
        """The ``(d,)`` float32 aggregate of n vectors, of which at most f are Byzantine."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The least n that a rule needs, ``per_f * f + constant``; called, it checks n and f."""

    rule: str
    """Whose bound it is."""
    per_f: int
    """Vectors for each that may be Byzantine."""
    constant: int
    """Vectors besides; at least 1."""

    def __call__(self, n: int, f: int) -> str | None:
        """None, or the sentence that says by how much n vectors are too few.

        Args:
            n: How many vectors there are.
            f: How many of them may be Byzantine.
        """
        least = self.per_f * f + self.constant
        return f"{self.rule} needs n >= {self}, but {n} < {least}" if n < least else None

    def __str__(self) -> str:
        return f"{self.per_f} f + {self.constant}" if self.per_f else str(self.constant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An aggregation rule and what its callers need to know of it."""

    name: str
    """What cluster files, reports and metric labels call it."""
    aggregate: AggregateFunction
    """The rule itself."""
    check: Bound
    """None where the rule keeps its promise for n vectors with f Byzantine ones among them, or
    one sentence with the violated inequality and its numbers."""
    kappa: Kappa | None
    """The proven coefficient of robustness, or None where none is proven: for any n - f rows C,
    the squared distance of the result from their mean is at most kappa times their variance,
    that is the mean of their squared distances from their mean."""
    kappa_formula: str
    """The same in symbols."""
    cost: str
    """Time, and memory beyond the result, in symbols."""
    use: str
    """When to take it, for the table of rules in the documentation."""
    paper: str
    """Where it is from."""
    select: Callable[[Vectors, int], tuple[int, ...]] | None = None
    """For rules whose result is the average of a subset: the indices of its rows, ascending."""


def checked_rows(vectors: Vectors, f: int, check: Bound) -> list[Row]:
    """The rows of vectors that fit together and satisfy a rule's bound; no coordinate is read.

    Args:
        vectors: ``(n, d)`` float32, or n rows of ``(d,)`` float32.
        f: How many rows may be Byzantine.
        check: The rule's bound.

    Raises:
        AggregationError: If a shape, a dtype, f or n is wrong.
    """
    if isinstance(vectors, np.ndarray) and vectors.ndim != 2:
        raise AggregationError(f"vectors must be (n, d); found the shape {vectors.shape}")
    if type(f) is not int or f < 0:
        raise AggregationError(f"f must be an integer of at least 0; found {f!r}")
    try:
        rows = list(vectors)
    except TypeError:
        raise AggregationError(f"vectors must be rows; found {_described(vectors)}") from None
    for index, row in enumerate(rows):
        if isinstance(row, Mixture):
            continue
        if not isinstance(row, np.ndarray) or row.ndim != 1 or row.dtype != np.float32:
            raise AggregationError(f"row {index} must be (d,) float32; found {_described(row)}")
        if len(row) != len(rows[0]):
            raise AggregationError(
                f"row {index} has {len(row)} coordinates, but row 0 has {len(rows[0])}"
            )
    if problem := check(len(rows), f):
        raise AggregationError(problem)
    if len(rows[0]) == 0:
        raise AggregationError("vectors have no coordinates")
    return rows


def result_vector(rows: Sequence[Row], out: Vector | None) -> Vector:
    """The vector that a rule writes its result to: ``out`` once checked, or a new one.

    Args:
        rows: The checked rows.
        out: ``(d,)`` float32, contiguous, sharing no memory with a row; or None.

    Raises:
        AggregationError: If ``out`` cannot take the result, or is part of a row.
    """
    d = len(rows[0])
    if out is None:
        return np.empty(d, np.float32)
    if not is_vector(out, d) or not out.flags.writeable:
        raise AggregationError(
            f"out must be ({d},) float32, contiguous and writeable; found {_described(out)}"
        )
    for index, row in enumerate(rows):
        if isinstance(row, np.ndarray) and np.shares_memory(out, row):
            raise AggregationError(f"out shares memory with row {index}")
    return out


def refuse_non_finite(rows: Sequence[Row]) -> None:
    """Refuse rows that are NaN or infinite anywhere.

    Raises:
        AggregationError: Naming the first such row.
    """
    for index, row in enumerate(rows):
        # A mixture too can be sliced, which is all that this asks of a vector.
        if not is_finite(cast(Vector, row)):
            raise AggregationError(f"row {index} has a coordinate that is not finite")


def every_row(rows: Sequence[Row]) -> tuple[int, ...]:
    """The indices of all rows: what a rule selects where nobody may lie.

    Raises:
        AggregationError: If a row is not finite, which no distance has shown.
    """
    refuse_non_finite(rows)
    return tuple(range(len(rows)))


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return type(value).__name__
