"""Adaptive clipping: no vector stays longer than most of them are."""

import math
from collections.abc import Sequence

import numpy as np

from byzsgd.aggregation.mixture import Mixture, Row
from byzsgd.aggregation.pre_step import PreStep
from byzsgd.vectors import BLOCK, norm


def clipping(rows: Sequence[Row], f: int, seed: int) -> list[Row]:
    """The rows, those of the floor(2 f / n (n - f)) largest norms scaled down to the next norm.

    Liars can neither choose the norm by theirs nor be longer than a correct vector. A number to be
    tuned is not needed.

    Args:
        rows: n rows of length d, ordered by identity, finite; ``n >= 2 f + 1``.
        f: At most this many rows are Byzantine.
        seed: Not used.

    Source: Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan, "Adaptive Gradient Clipping for
    Robust Federated Learning" (ARC).
    """
    del seed
    n = len(rows)
    norms = np.array([_norm(row) for row in rows])
    clipped = 2 * f * (n - f) // n
    limit = np.partition(norms, n - 1 - clipped)[n - 1 - clipped]
    return [
        Mixture([row], np.array([limit / length])) if length > limit else row
        for row, length in zip(rows, norms, strict=True)
    ]


def _norm(row: Row) -> float:
    """Euclidean norm; by contiguous blocks, for BLAS rounds according to strides."""
    blocks = (row[low : low + BLOCK] for low in range(0, len(row), BLOCK))
    return math.hypot(*(norm(np.ascontiguousarray(block)) for block in blocks))


CLIPPING = PreStep(
    name="clipping",
    mix=clipping,
    per_f=2,
    kappa_formula="not given",
    cost="O(n d)",
    use="Workers' data differ much: before nnm.",
    paper="Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan, Adaptive Gradient Clipping for "
    "Robust Federated Learning, ICLR 2025",
)
