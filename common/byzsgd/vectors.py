"""Flat float32 vectors: what models and gradients are, and what makes one valid."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
"""``(d,)`` float32, C-contiguous: a model or a gradient, flattened."""

BLOCK = 1 << 16
"""Coordinates handled at once: 256 KiB of float32, so that scratch stays in the core's cache."""


def is_finite(vector: Vector) -> bool:
    """Whether every coordinate is finite, block by block: scratch never exceeds one block.

    Args:
        vector: ``(d,)`` float32.
    """
    return all(
        bool(np.isfinite(vector[low : low + BLOCK]).all()) for low in range(0, len(vector), BLOCK)
    )


def is_vector(value: object, d: int) -> bool:
    """Whether a value is a contiguous float32 vector of exactly ``d`` coordinates."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.float32
        and value.shape == (d,)
        and value.flags.c_contiguous
    )


def distance(a: Vector, b: Vector) -> float:
    """Euclidean distance between two vectors, summed in float64 across blocks.

    Args:
        a: ``(d,)`` float32, finite.
        b: ``(d,)`` float32, finite.

    Returns:
        The distance; exact scale even where float32 squares would overflow or vanish.
    """
    total = 0.0
    for low in range(0, len(a), BLOCK):
        difference = a[low : low + BLOCK].astype(np.float64)
        difference -= b[low : low + BLOCK]
        total += float(difference @ difference)
    return float(np.sqrt(total))


def norm(vector: Vector) -> float:
    """Euclidean norm, summed in float64 across blocks.

    Args:
        vector: ``(d,)`` float32.
    """
    total = 0.0
    for low in range(0, len(vector), BLOCK):
        block = vector[low : low + BLOCK].astype(np.float64)
        total += float(block @ block)
    return float(np.sqrt(total))
