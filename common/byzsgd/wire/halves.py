"""float16 and bfloat16: two bytes for each coordinate of a float32 vector, and back.

Packing rounds to the nearest, and to the even one of two. What is finite stays finite: beyond the
largest number of a type that number stands for it. What is infinite stays so, and so does NaN, so
that whoever receives it refuses it. Unpacking changes nothing: rounded once, a vector comes out of
packing and unpacking as it went in.

NumPy has no bfloat16. It is the upper half of a float32, which integers can round: adding 7fff to
the bits, and 8000 where bit 16 is set, carries into the upper half whenever it is to be rounded up.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byzsgd.cluster import WireType
from byzsgd.vectors import BLOCK, Vector

Bytes: TypeAlias = bytes | bytearray | memoryview

_STORED = {WireType.FLOAT16: np.dtype("<f2"), WireType.BFLOAT16: np.dtype("<u2")}
"""How halves lie on the wire, as far as NumPy has a word for it."""

LARGEST = {
    WireType.FLOAT16: np.float32(65504),
    WireType.BFLOAT16: np.uint32(0x7F7F0000).view(np.float32),
}
"""The largest finite number of each type."""

_OVERFLOW = {
    WireType.FLOAT16: np.float32(65520),
    WireType.BFLOAT16: np.uint32(0x7F7F8000).view(np.float32),
}
"""The smallest float32 that is rounded to infinity."""


def pack(vector: Vector, wire_type: WireType, out: NDArray[np.uint8]) -> None:
    """Write the bytes of a vector, rounded to a type of two bytes, block by block.

    Args:
        vector: ``(d,)`` float32.
        wire_type: ``float16`` or ``bfloat16``.
        out: ``(2 d,)``; the bytes.
    """
    packed = out.view(_STORED[wire_type])
    scratch = np.empty(min(len(vector), BLOCK), dtype=np.uint32)
    overflow = _OVERFLOW[wire_type]
    for low in range(0, len(vector), BLOCK):
        block, halves = vector[low : low + BLOCK], packed[low : low + BLOCK]
        # False also where there is a NaN.
        if not (block.max() < overflow and block.min() > -overflow):
            block = _clipped(block, LARGEST[wire_type])
        if wire_type is WireType.FLOAT16:
            halves[...] = block
        else:
            _round(block.view(np.uint32), halves, scratch[: len(block)])


def unpack(payload: Bytes, wire_type: WireType, out: Vector) -> None:
    """Write the coordinates that packed bytes hold, block by block.

    Args:
        payload: Two bytes for each coordinate.
        wire_type: ``float16`` or ``bfloat16``.
        out: ``(d,)`` float32; the coordinates.
    """
    packed = np.frombuffer(payload, dtype=_STORED[wire_type])
    if wire_type is WireType.FLOAT16:
        out[...] = packed
        return
    bits = out.view(np.uint32)
    for low in range(0, len(bits), BLOCK):
        block = bits[low : low + BLOCK]
        block[...] = packed[low : low + BLOCK]
        block <<= 16


def rounded(vector: Vector, wire_type: WireType) -> Vector:
    """What becomes of a vector on its way.

    Args:
        vector: ``(d,)`` float32.
        wire_type: What it travels as.

    Returns:
        ``(d,)`` float32, newly allocated.
    """
    if wire_type is WireType.FLOAT32:
        return vector.copy()
    packed, result = np.empty(2 * len(vector), dtype=np.uint8), np.empty_like(vector)
    pack(vector, wire_type, packed)
    unpack(packed.data, wire_type, result)
    return result


def _clipped(block: Vector, largest: np.float32) -> Vector:
    """A block whose finite coordinates have a finite half, and whose NaNs are all the usual one.

    The carry of rounding would make a number of a NaN of many bits.
    """
    clipped = np.clip(block, -largest, largest)
    clipped[np.isnan(block)] = np.nan
    return np.where(np.isinf(block), block, clipped)


def _round(bits: NDArray[np.uint32], out: NDArray[Any], scratch: NDArray[np.uint32]) -> None:
    """Write the upper halves of float32 bits, rounded to the nearest, ties to even."""
    np.right_shift(bits, 16, out=scratch)
    scratch &= 1
    scratch += np.uint32(0x7FFF)
    scratch += bits
    scratch >>= 16
    out[...] = scratch
