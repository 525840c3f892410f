"""Rows that are weighted sums of others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzsgd.aggregation.mixture import BLOCK, Mixture

LARGEST = np.finfo(np.float32).max


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32), equal=st.booleans(), tiny=st.booleans())
def test_a_weighted_sum(seed: int, equal: bool, tiny: bool) -> None:
    """Every slice is the weighted sum of the rows' slices, whatever the weights and scales."""
    chance = np.random.default_rng(seed)
    n, d = int(chance.integers(1, 9)), int(chance.integers(1, 50))
    rows = chance.standard_normal((n, d), dtype=np.float32)
    weights = np.ones(n) if equal else chance.random(n)
    weights[1:][chance.random(n - 1) < 0.3] = 0
    if tiny:
        # As of a row far away: its weight is small, and their product is not.
        rows[1:] *= np.float32(1e-20)
        rows[0] *= np.float32(1e38 / 5)
        weights[0] *= 1e-58
    weights /= weights.sum()
    mixture = Mixture(list(rows), weights)
    expected = weights @ rows.astype(np.float64)
    low, high = sorted(int(end) for end in chance.integers(0, d + 1, 2))

    assert len(mixture) == d
    slack = 1e-26 if tiny and n > 1 else 1e-6
    np.testing.assert_allclose(mixture[low:high], expected[low:high], rtol=1e-5, atol=slack)
    assert mixture[low:high].dtype == np.float32


def test_all_of_it_is_written() -> None:
    """Block by block, the last one shorter."""
    rows = np.random.default_rng(1).standard_normal((3, 2 * BLOCK + 7), dtype=np.float32)
    result = np.full(2 * BLOCK + 7, np.nan, np.float32)
    Mixture(list(rows), np.full(3, 1 / 3)).write(result)

    np.testing.assert_allclose(result, rows.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_mixtures_of_mixtures() -> None:
    """A mixture is a row like any other."""
    rows = [np.float32([value]) for value in (1, 2, 6)]
    inner = Mixture(rows, np.array([0.5, 0.5, 0]))

    assert Mixture([inner, rows[2]], np.array([0.5, 0.5]))[0:1] == [3.75]


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.3, 0.7], [1 - 1e-20, 1e-20]])
def test_sums_near_the_largest_number_are_finite(weights: list[float]) -> None:
    """Rounding up does not lead beyond float32, nor does a sum before it is divided."""
    rows = [np.full(5, LARGEST, np.float32)] * 2

    np.testing.assert_allclose(Mixture(rows, np.array(weights))[0:5], LARGEST, rtol=1e-6)


def test_weights_of_zero_make_zero() -> None:
    """A row that is scaled to nothing."""
    assert Mixture([np.float32([3, -4])], np.zeros(1))[0:2].tolist() == [0, 0]
