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


def copy_finite(source: Vector, target: Vector) -> bool:
    """Whether every coordinate of a vector is finite; it is copied meanwhile, up to where it isn't.

    As ``target[:] = source`` and ``is_finite(target)``, but block by block: each is looked at
    while the core's cache still has it.

    Args:
        source: ``(d,)`` float32, possibly misaligned or of the other byte order.
        target: ``(d,)`` float32.
    """
    for low in range(0, len(source), BLOCK):
        block = target[low : low + BLOCK]
        block[...] = source[low : low + BLOCK]
        if not np.isfinite(block).all():
            return False
    return True


def is_vector(value: object, d: int) -> bool:
    """Whether a value is a contiguous float32 vector of exactly ``d`` coordinates."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.float32
        and value.shape == (d,)
        and value.flags.c_contiguous
    )


def distance(a: Vector, b: Vector) -> float:
    """Euclidean distance between two vectors: float32 inside a block, float64 across blocks.

    Args:
        a: ``(d,)`` float32, finite.
        b: ``(d,)`` float32, finite.

    Returns:
        The distance, of the right scale also where float32 squares overflow or vanish.
    """
    blocks = range(0, len(a), BLOCK)
    return float(
        np.sqrt(sum(_squared(a[low : low + BLOCK], b[low : low + BLOCK]) for low in blocks))
    )


def norm(vector: Vector) -> float:
    """Euclidean norm: float32 inside a block, float64 across blocks.

    Args:
        vector: ``(d,)`` float32, finite.
    """
    blocks = range(0, len(vector), BLOCK)
    return float(np.sqrt(sum(_squared(vector[low : low + BLOCK]) for low in blocks)))


SQUARE_MIN, SQUARE_MAX = 1e-20, 1e30
"""Sums of float32 squares outside these are redone in float64: they overflowed, or may have lost
what matters below float32's smallest normal number."""


def _squared(a: Vector, b: Vector | None = None) -> float:
    """Squared Euclidean distance of two blocks, or squared norm of one."""
    with np.errstate(over="ignore", invalid="ignore"):
        difference = a if b is None else a - b
        square = float(difference @ difference)
    if SQUARE_MIN < square < SQUARE_MAX:
        return square
    wide = a.astype(np.float64) - (0 if b is None else b)
    return float(wide @ wide)
