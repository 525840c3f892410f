"""What other implementations of these rules get wrong, one test each."""

import numpy as np
import pytest

from byzsgd.aggregation import RULES, Rule, coordinate_median, krum, krum_subset, mda, mda_subset

N, F, D = 7, 2, 1000

robust_rules = pytest.mark.parametrize(
    "rule", [rule for name, rule in RULES.items() if name != "average"], ids=lambda rule: rule.name
)


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


# Every rule. With f = 1, so that seven rows are enough for Bulyan.


def away(rule: Rule, vectors: np.ndarray, liar: int) -> float:
    """How far the result is from the correct rows' mean, over how far the farthest of them is."""
    correct = np.delete(vectors, liar, axis=0).astype(np.float64)
    mean = correct.mean(axis=0)
    reach = np.linalg.norm(correct - mean, axis=1).max()
    return float(np.linalg.norm(rule.aggregate(vectors, 1) - mean) / reach)


@robust_rules
@pytest.mark.parametrize("value", [2e19, -2e20, 2e30, 3e38])
@pytest.mark.parametrize("liar", [0, 3, 6])
def test_no_large_row_moves_a_rule(rule: Rule, value: float, liar: int) -> None:
    """Whatever overflows float32, the result stays among the correct rows."""
    vectors = gaussian()
    vectors[liar] = value

    assert away(rule, vectors, liar) < 1.2


@robust_rules
@pytest.mark.parametrize("offset", [100, 1e4])
def test_no_common_offset_moves_a_rule(rule: Rule, offset: float) -> None:
    """With rows near 1e2 and 1e4 and a spread of 1e-3 and 1e-1, a liar stays as weak as at 0."""
    vectors = gaussian(1e-5 * offset) + np.float32(offset)
    vectors[5] += np.float32(1e-3 * offset)

    assert away(rule, vectors, 5) < 1.2


@robust_rules
@pytest.mark.parametrize("scale", [1e-35, 1e-30, 1e-25, 1e19, 1e25, 1e36])
def test_no_scale_moves_a_rule(rule: Rule, scale: float) -> None:
    """Where all squares overflow or vanish, a liar is as weak as elsewhere."""
    vectors = gaussian(scale)
    vectors[0] += np.float32(50 * scale)

    assert away(rule, vectors, 0) < 1.2


@robust_rules
def test_far_points_do_not_blur_near_ones_for_any_rule(rule: Rule) -> None:
    """An outlier of 1e25 leaves the result among rows that are 1e-25 apart."""
    vectors = gaussian(1e-25)
    vectors[0] = 1e25

    assert away(rule, vectors, 0) < 1.2


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e-40, 3e38, np.finfo(np.float32).max])
def test_equal_rows_give_that_row(rule: Rule, value: float) -> None:
    """With f = 0 and f = 1, also where their sum exceeds float32."""
    vectors = np.full((N, 100), value, np.float32)
    for f in (0, 1):
        np.testing.assert_allclose(rule.aggregate(vectors, f), vectors[0], rtol=1e-6, atol=2e-45)


@robust_rules
def test_copies_of_a_lie_do_not_win(rule: Rule) -> None:
    """Liars that agree to the bit are at distance 0 from one another, and still too few."""
    vectors = np.random.default_rng(12).standard_normal((11, D), dtype=np.float32)
    vectors[[0, 3]] = 20
    correct = np.delete(vectors, [0, 3], axis=0)

    assert np.linalg.norm(rule.aggregate(vectors, 2)) < 1.2 * np.linalg.norm(correct, axis=1).max()


@pytest.mark.parametrize(
    "name", ["average", "centered_clipping", "mda", "mean_around_median", "monna", "multi_krum"]
)
def test_without_liars_it_is_the_mean(name: str) -> None:
    """With f = 0 nothing is lost: every row weighs the same."""
    vectors = gaussian()

    np.testing.assert_allclose(
        RULES[name].aggregate(vectors, 0), vectors.mean(axis=0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        RULES["trimmed_mean"].aggregate(vectors, 0), vectors.mean(axis=0), rtol=1e-5, atol=1e-6
    )
