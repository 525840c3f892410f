"""What other implementations of these rules get wrong, one test each."""

import numpy as np
import pytest

from byzsgd.aggregation import coordinate_median, krum, krum_subset, mda, mda_subset

N, F, D = 7, 2, 1000


def gaussian(scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(11).standard_normal((N, D), dtype=np.float32) * np.float32(scale)


@pytest.mark.parametrize("value", [2e19, 2e20, 2e30, 3e38])
@pytest.mark.parametrize("liar", [0, 3, 6])
def test_one_large_finite_row_does_not_win_by_overflow(value: float, liar: int) -> None:
    """Squares beyond float32 do not turn into NaN and make the first subset the best one."""
    vectors = gaussian()
    vectors[liar] = value

    assert liar not in mda_subset(vectors, F)
    assert liar not in krum_subset(vectors, F)
    assert np.abs(mda(vectors, F)).max() < 10
    assert np.abs(coordinate_median(vectors, F)).max() < 10


@pytest.mark.parametrize("offset", [100, 1e4])
def test_a_common_offset_does_not_hide_the_liars(offset: float) -> None:
    """With rows near 1e2 and 1e4 and a spread of 1e-3 and 1e-1, the same rows are left out."""
    vectors = gaussian(1e-5 * offset) + np.float32(offset)
    vectors[[2, 5]] += np.float32(5e-5 * offset)

    assert mda_subset(vectors, F) == (0, 1, 3, 4, 6)
    assert krum_subset(vectors, F)[0] in (0, 1, 3, 4, 6)


@pytest.mark.parametrize("scale", [1e-35, 1e-30, 1e-25, 1e19, 1e25, 1e36])
def test_no_scale_makes_the_first_subset_win(scale: float) -> None:
    """Where all squares overflow or vanish, the liars among the first rows are left out still."""
    vectors = gaussian(scale)
    vectors[[0, 1]] += np.float32(8 * scale)

    assert mda_subset(vectors, F) == (2, 3, 4, 5, 6)
    assert krum_subset(vectors, F)[0] >= 2


def test_far_points_do_not_blur_near_ones() -> None:
    """An outlier of 1e25 does not spoil the choice among rows that are 1e-25 apart."""
    vectors = gaussian(1e-25)
    vectors[0] = 1e25
    vectors[1] += np.float32(8e-25)

    assert mda_subset(vectors, F) == (2, 3, 4, 5, 6)


def test_a_krum_winner_is_no_view() -> None:
    """Changing Krum's result does not change the row that won."""
    vectors = gaussian()
    before = vectors.tobytes()
    krum(vectors, F)[:] = 0

    assert vectors.tobytes() == before


def test_a_list_keeps_its_rows() -> None:
    """No rule takes rows out of the caller's list."""
    rows = list(gaussian())
    same = list(rows)
    for rule in (mda, krum, coordinate_median):
        rule(rows, F)

        assert len(rows) == N
        assert all(row is kept for row, kept in zip(rows, same, strict=True))


def test_a_vector_of_many_blocks_is_not_a_view_of_its_first() -> None:
    """Rows that differ only at their end, a hundred thousand coordinates in, are told apart."""
    vectors = np.zeros((N, 100_003), np.float32)
    vectors[[1, 4], -1] = 1e-3

    assert mda_subset(vectors, F) == (0, 2, 3, 5, 6)
    assert mda(vectors, F)[-1] == 0


def test_colliding_liars_do_not_win_by_being_close() -> None:
    """Liars that agree to the bit have diameter 0 among themselves and still are too few."""
    vectors = gaussian()
    vectors[[0, 3]] = 20

    assert mda_subset(vectors, F) == (1, 2, 4, 5, 6)
    assert krum_subset(vectors, F)[0] not in (0, 3)
