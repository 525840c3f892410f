"""The coordinate-wise median."""

import numpy as np
import pytest

from byzsgd.aggregation import coordinate_median
from byzsgd.aggregation.middles import CHUNK

LARGEST = np.finfo(np.float32).max


@pytest.mark.parametrize("n", range(1, 41))
def test_the_median_of_each_coordinate(n: int) -> None:
    """Every coordinate is the median of that coordinate of the rows, by NumPy in float64."""
    vectors = np.random.default_rng(n).standard_normal((n, 2000), dtype=np.float32)
    expected = np.median(vectors.astype(np.float64), axis=0).astype(np.float32)

    np.testing.assert_array_equal(coordinate_median(vectors, 0), expected)


@pytest.mark.parametrize("n", [4, 5, 10])
@pytest.mark.parametrize("d", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_chunks_do_not_show(n: int, d: int) -> None:
    """A vector of several chunks has the median of each coordinate, at their borders too."""
    vectors = np.random.default_rng(d).standard_normal((n, d), dtype=np.float32)

    np.testing.assert_array_equal(
        coordinate_median(vectors, 0), np.median(vectors.astype(np.float64), axis=0).astype("f4")
    )


def test_an_even_count_takes_the_mean_of_both_middles() -> None:
    """Neither the lower nor the upper middle: gathers would stop contracting."""
    assert coordinate_median(np.float32([[0], [1], [3], [9]]), 1) == [2]


def test_middles_near_the_largest_number_do_not_overflow() -> None:
    """The mean of two middles is finite where their sum is not."""
    vectors = np.float32([[LARGEST, 3e38, -LARGEST], [LARGEST, 2e38, LARGEST]])

    np.testing.assert_array_equal(coordinate_median(vectors, 0), np.float32([LARGEST, 2.5e38, 0]))


@pytest.mark.parametrize("n", range(3, 14))
def test_the_result_lies_between_correct_rows(n: int) -> None:
    """With at most f < n / 2 liars each coordinate lies within the correct rows' range."""
    chance = np.random.default_rng(n)
    f = (n - 1) // 2
    for _ in range(100):
        vectors = chance.standard_normal((n, 50), dtype=np.float32)
        liars = chance.permutation(n)[:f]
        vectors[liars] = chance.choice(np.float32([-LARGEST, -1, 0, 1, 1e30, LARGEST]), (f, 50))
        correct = np.delete(vectors, liars, axis=0)
        result = coordinate_median(vectors, f)

        assert (result >= correct.min(axis=0)).all()
        assert (result <= correct.max(axis=0)).all()


def test_the_order_of_rows_does_not_matter() -> None:
    """Any order of the rows gives the same bits, zeros of either sign among them."""
    chance = np.random.default_rng(5)
    values = np.float32([-1, -0.0, 0.0, 1e-45, 1])
    for n in range(1, 12):
        vectors = chance.choice(values, (n, 333))
        expected = coordinate_median(vectors, 0).tobytes()
        for _ in range(20):
            assert coordinate_median(vectors[chance.permutation(n)], 0).tobytes() == expected


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_zero_is_positive(n: int) -> None:
    """The median of negative zeros is +0.0: which zero is smaller differs between CPUs."""
    assert not np.signbit(coordinate_median(np.full((n, 99), -0.0, np.float32), 0)).any()


def test_two_medians_of_overlapping_quorums_contract() -> None:
    """Medians of different quorums of the same correct rows are closer than the rows are."""
    vectors = np.random.default_rng(6).standard_normal((5, 1000), dtype=np.float32)
    first, second = (coordinate_median(np.delete(vectors, k, axis=0), 1) for k in (0, 1))
    spread = np.linalg.norm(vectors[0] - vectors[1])

    assert np.linalg.norm(first - second) < spread / 3
