"""float16 and bfloat16: against plain twins, number by number, and what must hold of any vector."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from byzsgd.cluster import WireType
from byzsgd.vectors import BLOCK, Vector
from byzsgd.wire.halves import LARGEST, pack, rounded, unpack

HALVES = (WireType.FLOAT16, WireType.BFLOAT16)
FINITE_MAX = {WireType.FLOAT16: 0x7BFF, WireType.BFLOAT16: 0x7F7F}
"""Bits of the largest finite number of each type."""

any_bits = st.integers(0, 2**32 - 1)
any_vector = arrays(np.uint32, st.integers(1, 40), elements=any_bits).map(
    lambda bits: bits.view(np.float32)
)
either = pytest.mark.parametrize("half", HALVES)


def number(bits: int, half: WireType) -> float:
    """The plain twin of unpacking: what the bits of one half mean."""
    if half is WireType.BFLOAT16:
        return struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def nearest(value: float, half: WireType) -> int:
    """The plain twin of packing a finite number: its bits, by bisection among all halves."""
    sign, magnitude = (0x8000 if np.signbit(value) else 0), Fraction(abs(value))
    low, high = 0, FINITE_MAX[half]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if Fraction(number(middle, half)) <= magnitude else (low, middle)
    below = magnitude - Fraction(number(low, half))
    above = Fraction(number(high, half)) - magnitude
    up = below > above or (below == above and low % 2 == 1)
    return sign | (high if up else low)


def packed(vector: Vector, half: WireType) -> list[int]:
    out = np.empty(2 * len(vector), np.uint8)
    pack(vector, half, out)
    return list(out.view("<u2"))


@either
@settings(max_examples=500)
@given(value=any_bits.map(lambda bits: np.uint32(bits).view(np.float32)))
@example(value=np.float32(65519.996))
@example(value=np.float32(65520))
@example(value=np.float32(3.4028235e38))
@example(value=np.float32(2**-25))
@example(value=np.float32(-1e-45))
@example(value=np.float32(1 + 2**-8))
@example(value=np.float32(1 + 3 * 2**-8))
@example(value=np.float32(-0.0))
def test_packing_rounds_to_the_nearest_even_as_the_plain_twin(
    half: WireType, value: np.float32
) -> None:
    """Also where numbers are subnormal, and beyond the largest: that stands for them."""
    if np.isfinite(value):
        assert packed(np.float32([value]), half) == [nearest(float(value), half)]


@either
def test_unpacking_is_the_plain_twin_for_all_halves(half: WireType) -> None:
    """All 65,536 of them, NaN for NaN."""
    every = np.arange(2**16, dtype="<u2")
    out = np.empty(2**16, np.float32)

    unpack(every.tobytes(), half, out)

    np.testing.assert_array_equal(out, np.float32([number(int(bits), half) for bits in every]))
    assert (np.signbit(out) == (every >= 0x8000)).all()


@either
@settings(max_examples=300)
@given(vector=any_vector)
def test_whatever_the_vector_holds(half: WireType, vector: Vector) -> None:
    """What is finite stays so and near; infinity and NaN stay what they are. Once is enough."""
    result = rounded(vector, half)

    finite = np.isfinite(vector)
    assert (np.isfinite(result) == finite).all()
    assert (np.isnan(result) == np.isnan(vector)).all()
    infinite = np.isinf(vector)
    assert (result[infinite] == vector[infinite]).all()
    assert (np.signbit(result) == np.signbit(vector))[~np.isnan(vector)].all()
    assert (np.abs(result[finite]) <= LARGEST[half]).all()
    assert packed(result[finite], half) == packed(vector[finite], half)
    assert (rounded(result[finite], half) == result[finite]).all()
    precise = 2.0**-11 if half is WireType.FLOAT16 else 2.0**-8
    inside = finite & (np.abs(vector) <= LARGEST[half])
    error = np.abs(result[inside].astype(float) - vector[inside])
    tiny = 2.0**-25 if half is WireType.FLOAT16 else 2.0**-134
    assert (error <= np.maximum(precise * np.abs(vector[inside].astype(float)), tiny)).all()


@either
@pytest.mark.parametrize("d", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_blocks_change_nothing(half: WireType, d: int) -> None:
    """A vector is rounded coordinate by coordinate, also at the edges of blocks."""
    vector = np.random.default_rng(d).standard_normal(d, np.float32)
    vector[d // 2], vector[-1] = 1e38, np.float32(-np.pi)
    before = vector.tobytes()

    whole = rounded(vector, half)

    pieces = [rounded(vector[low : low + 1000], half) for low in range(0, d, 1000)]
    assert whole.tobytes() == b"".join(piece.tobytes() for piece in pieces)
    assert vector.tobytes() == before


@either
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001, 0x7FC00000])
def test_no_nan_becomes_a_number(half: WireType, bits: int) -> None:
    """Whatever its bits: a carry would make -0 of the NaN of all ones."""
    vector = np.uint32([0, bits, 0]).view(np.float32)

    assert list(np.isnan(rounded(vector, half))) == [False, True, False]


def test_float32_is_no_rounding() -> None:
    """A copy, bit for bit."""
    vector = np.float32([1, np.pi, 1e-45])

    copy = rounded(vector, WireType.FLOAT32)

    assert copy.tobytes() == vector.tobytes()
    assert not np.shares_memory(copy, vector)
