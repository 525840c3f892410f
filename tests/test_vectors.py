"""Distances and norms at every scale that float32 has, and what counts as a vector."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzsgd.vectors import BLOCK, Vector, copy_finite, distance, is_finite, is_vector, norm

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)

SCALES = (SMALLEST, 1e-42, 1e-38, 1e-30, 1e-20, 1e-10, 1e-5, 1.0, 1e5, 1e10, 1e18, 1e19, 1e30)


def gaussian(d: int, seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(d, np.float32)


def exact_norm(vector: np.ndarray) -> float:
    """The norm by a way of its own: scaled, so that nothing overflows or vanishes."""
    return math.hypot(*map(float, vector.astype(np.float64)))


@pytest.mark.parametrize("scale", SCALES)
def test_norm_is_right_at_every_scale(scale: float) -> None:
    """Also where the squares overflow float32 or vanish in it."""
    vector = (gaussian(1000, seed=1) * np.float32(scale)).astype(np.float32)

    assert norm(vector) == pytest.approx(exact_norm(vector), rel=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_distance_is_right_at_every_scale(scale: float) -> None:
    """Also where the squares overflow float32 or vanish in it."""
    a, b = ((gaussian(1000, seed) * np.float32(scale)).astype(np.float32) for seed in (1, 2))

    expected = exact_norm(a.astype(np.float64) - b)
    assert distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_the_difference_itself_may_overflow() -> None:
    """The two ends of float32 are twice its largest number apart, without a warning."""
    a, b = np.float32([LARGEST, 0]), np.float32([-LARGEST, 0])

    assert distance(a, b) == pytest.approx(2 * LARGEST)
    assert norm(a) == pytest.approx(LARGEST)


def test_a_small_difference_of_large_vectors_is_kept() -> None:
    """Distances come of differences, so a common offset does not drown them."""
    a = np.full(5, 2**20, np.float32)
    b = a + np.float32([0.5, 0, 0, 0, 0])

    assert distance(a, b) == 0.5


@pytest.mark.parametrize("d", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_every_block_counts(d: int) -> None:
    """As many ones as d have the norm sqrt(d), wherever the blocks end."""
    ones, other = np.ones(d, np.float32), np.ones(d, np.float32)
    other[-1] = 3

    assert norm(ones) == pytest.approx(math.sqrt(d), rel=1e-12)
    assert distance(ones, other) == 2


def test_blocks_of_very_different_size_do_not_drown_one_another() -> None:
    """Across blocks sums are float64: a million small squares add up beside a large one."""
    vector = np.ones(16 * BLOCK, np.float32)
    vector[:BLOCK] = 0
    vector[0] = 2**20

    assert norm(vector) == pytest.approx(math.sqrt(2**40 + 15 * BLOCK), rel=1e-12)


def test_nothing_has_no_length() -> None:
    """The norm of no coordinates is 0, and so is the distance of a vector to itself."""
    assert norm(np.zeros(0, np.float32)) == 0
    assert distance(gaussian(9, seed=1), gaussian(9, seed=1)) == 0


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=20))
def test_distance_is_a_metric(pairs: list[tuple[float, float]]) -> None:
    """Symmetric, zero for equals alone, and right for any two vectors."""
    a = np.array([pair[0] for pair in pairs], np.float32)
    b = np.array([pair[1] for pair in pairs], np.float32)

    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == np.array_equal(a, b)
    assert distance(a, b) == pytest.approx(exact_norm(a.astype(np.float64) - b), rel=1e-5)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK])
def test_one_coordinate_that_is_not_finite_is_found(wrong: float, at: int) -> None:
    """In any block, at its ends too."""
    vector = np.full(2 * BLOCK + 1, LARGEST, np.float32)
    assert is_finite(vector)

    vector[at] = wrong
    assert not is_finite(vector)


@pytest.mark.parametrize("d", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
@pytest.mark.parametrize("offset", [0, 1])
def test_a_copy_that_is_looked_at_is_a_copy(d: int, offset: int) -> None:
    """As the plain copy and a look after it, also from where memory is not aligned."""
    memory = bytes(offset) + gaussian(d, seed=1).tobytes()
    source = np.frombuffer(memory, np.float32, offset=offset)
    target, plain = np.zeros((2, d), np.float32)

    plain[...] = source
    assert copy_finite(source, target)
    np.testing.assert_array_equal(target, plain)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, 2 * BLOCK])
def test_a_copy_finds_what_is_not_finite(wrong: float, at: int) -> None:
    """As ``is_finite`` does, in any block, at its ends too."""
    vector = np.full(2 * BLOCK + 1, LARGEST, np.float32)
    vector[at] = wrong

    assert not copy_finite(vector, np.empty_like(vector))


def test_what_is_a_vector() -> None:
    """Contiguous float32 of exactly d coordinates."""
    assert is_vector(np.zeros(3, np.float32), 3)
    assert is_vector(np.zeros(0, np.float32), 0)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1.0, 2.0, 3.0],
        np.zeros(2, np.float32),
        np.zeros(4, np.float32),
        np.zeros(3, np.float64),
        np.zeros(3, ">f4"),
        np.zeros((1, 3), np.float32),
        np.zeros((3, 1), np.float32),
        np.zeros(6, np.float32)[::2],
        np.float32(3),
    ],
    ids=str,
)
def test_what_is_no_vector(value: object) -> None:
    """Other lengths, dtypes, byte orders, shapes, strides, and what is no array at all."""
    assert not is_vector(value, 3)
