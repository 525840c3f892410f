"""Every rule against its definition in float64, and what is proven of it."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from byzsgd.aggregation import RULES, Rule

Naive = Callable[[str, np.ndarray, int], np.ndarray]

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
robust_rules = pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if rule.check(1, 1)], ids=lambda rule: rule.name
)


def fitting(rule: Rule, n_max: int = 12) -> Iterator[tuple[int, int]]:
    """Every n and f that a rule takes."""
    for n in range(1, n_max):
        yield from ((n, f) for f in range(n) if rule.check(n, f) is None)


def lied_to(chance: np.random.Generator, n: int, f: int, outlier: float) -> np.ndarray:
    """Correct rows of variance 1, and f rows that are off by about ``outlier``, in any order."""
    vectors = chance.standard_normal((n, int(chance.integers(1, 40))))
    lies = chance.standard_normal(vectors.shape[1])
    vectors[chance.permutation(n)[:f]] += outlier * lies / np.linalg.norm(lies)
    return vectors


# Definitions


@every_rule
@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([1e-25, 1e-3, 1, 1e19, 1e30]),
    offset=st.sampled_from([0, 0, 1e4]),
    outlier=st.sampled_from([0, 1, 30, 1e3, 1e8]),
)
def test_a_rule_does_what_its_definition_says(
    rule: Rule, naive: Naive, seed: int, scale: float, offset: float, outlier: float
) -> None:
    """Whatever n, f, scale, common offset and lies, the result is that of the definition."""
    chance = np.random.default_rng(seed)
    n, f = list(fitting(rule))[seed % len(list(fitting(rule)))]
    vectors = ((lied_to(chance, n, f, outlier) + offset) * scale).astype(np.float32)
    correct = np.sort(np.abs(vectors - np.median(vectors, axis=0)), axis=0)[(n - 1) // 2]
    # What rounding to float32 allows, and what the iterations' last move does.
    believed = rule.name == "average" or np.abs(vectors) < 1e6 * scale
    slack = 4e-6 * np.abs(vectors).max(where=believed, initial=0)
    slack += 2e-4 * float(correct.max())

    np.testing.assert_allclose(
        rule.aggregate(vectors, f), naive(rule.name, vectors, f), rtol=0, atol=slack
    )


def test_a_median_between_two_rows_far_apart(naive: Naive) -> None:
    """The geometric median of groups of rows is theirs, also where most distances are small."""
    chance = np.random.default_rng(1)
    for spread in (1e-6, 1e-3, 1e-1):
        vectors = (spread * chance.standard_normal((9, 5))).astype(np.float32)
        vectors[5:] += 1
        expected = naive("geometric_median", vectors, 4)

        np.testing.assert_allclose(
            RULES["geometric_median"].aggregate(vectors, 4), expected, atol=1e-3 * spread
        )


# The order of rows


@pytest.mark.parametrize(
    # Not bulyan and mda: where distances are equal, and two nearest neighbours are equally far from
    # one another, as several subsets have the same farthest pair, the first rows win.
    "rule",
    [rule for name, rule in RULES.items() if name not in ("bulyan", "mda")],
    ids=lambda rule: rule.name,
)
@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), outlier=st.sampled_from([0, 3, 1e3, 1e12, 1e30]))
def test_the_order_of_rows_does_not_matter(rule: Rule, seed: int, outlier: float) -> None:
    """Without ties, any order of the rows gives the same result up to rounding."""
    chance = np.random.default_rng(seed)
    n, f = 11, 2
    vectors = lied_to(chance, n, f, outlier).astype(np.float32)
    assume(vectors.shape[1] > 1)  # On a line, distances of different pairs are often equal.
    slack = 1e-5 * max(1.0, outlier if rule.name == "average" else 0)

    np.testing.assert_allclose(
        rule.aggregate(vectors[chance.permutation(n)], f),
        rule.aggregate(vectors, f),
        rtol=1e-5,
        atol=slack,
    )


@pytest.mark.parametrize("name", ["coordinate_median", "mean_around_median", "trimmed_mean"])
def test_rules_of_coordinates_do_not_depend_on_order(name: str) -> None:
    """Where values are sorted first, any order of the rows gives the same bits, also with ties."""
    chance = np.random.default_rng(3)
    for n in (5, 6, 11):
        vectors = chance.choice(np.float32([-1, -0.0, 0.0, 1e-45, 0.1, 0.3, 1]), (n, 500))
        expected = RULES[name].aggregate(vectors, 2).tobytes()
        for _ in range(20):
            shuffled = vectors[chance.permutation(n)]
            assert RULES[name].aggregate(shuffled, 2).tobytes() == expected


# What is proven


@robust_rules
@pytest.mark.parametrize("outlier", [0.0, 0.5, 1.0, 2.0, 5.0, 100.0, 1e30])
def test_kappa_holds(rule: Rule, outlier: float) -> None:
    """The result is within sqrt(kappa) standard deviations of any n - f rows from their mean."""
    assert rule.kappa is not None
    chance = np.random.default_rng(int(outlier * 10) % 1000)
    for n, f in fitting(rule, 16):
        for _ in range(10):
            vectors = chance.standard_normal((n, int(chance.integers(1, 4)))).astype(np.float32)
            lie = outlier * chance.choice([-1, 0, 1], vectors.shape[1])
            vectors[n - f :] = (lie + 0.1 * chance.standard_normal((f, 1))).astype(np.float32)
            correct = vectors[: n - f].astype(np.float64)
            mean = correct.mean(axis=0)
            variance = ((correct - mean) ** 2).sum() / (n - f)
            away = np.linalg.norm(rule.aggregate(vectors, f) - mean)

            assert away <= np.sqrt(rule.kappa(n, f) * variance) + 1e-5


@robust_rules
def test_kappa_claims_nothing_impossible(rule: Rule) -> None:
    """No rule can have a kappa below f / (n - 2 f), which two clusters of rows show."""
    assert rule.kappa is not None
    for n, f in fitting(rule, 40):
        assert rule.kappa(n, f) >= f / (n - 2 * f)


def test_the_average_has_no_kappa_but_without_liars() -> None:
    """One row moves it anywhere, and without one it is exact."""
    kappa = RULES["average"].kappa

    assert kappa is not None
    assert kappa(10, 1) == np.inf
    assert kappa(10, 0) == 0


@robust_rules
@pytest.mark.parametrize("value", [1e3, 2e19, 3e38])
def test_far_liars_have_little_influence(rule: Rule, value: float) -> None:
    """Up to f rows anywhere far away leave the result within the correct rows' reach."""
    chance = np.random.default_rng(4)
    for n, f in [pair for pair in fitting(rule, 14) if pair[1]]:
        vectors = chance.standard_normal((n, 50), dtype=np.float32)
        liars = chance.permutation(n)[:f]
        vectors[liars] = value * chance.choice([-1, 1], (f, 50))
        correct = np.delete(vectors, liars, axis=0)
        reach = np.linalg.norm(correct - correct.mean(axis=0), axis=1).max()
        away = np.linalg.norm(rule.aggregate(vectors, f) - correct.mean(axis=0))

        assert away <= 2 * f * reach


# One rule each


def test_multi_krum_averages_n_minus_f() -> None:
    """Of the six scores of n = 6 rows the one of the far row is left out."""
    vectors = np.float32([[0], [1], [2], [3], [4], [900]])

    assert RULES["multi_krum"].select is not None
    assert RULES["multi_krum"].select(vectors, 1) == (0, 1, 2, 3, 4)


def test_monna_trusts_the_row_with_the_nearest_neighbours() -> None:
    """With n = 2 f + 1, where Krum does not work, the row in the middle is trusted."""
    vectors = np.float32([[0], [10], [11], [13], [900]])

    assert RULES["monna"].select is not None
    # Of 10, 11 and 13 the one at 11 has the smallest sum: 1 + 4.
    assert RULES["monna"].select(vectors, 2) == (1, 2, 3)


def test_bulyan_sees_a_lie_in_one_coordinate() -> None:
    """A liar who agrees in a thousand coordinates and lies in one does not count there."""
    vectors = np.random.default_rng(5).standard_normal((7, 1000), dtype=np.float32)
    vectors[6] = vectors[:6].mean(axis=0)  # So Krum selects it, whatever it says of one coordinate.
    vectors[6, 77] = 30

    assert RULES["krum"].select is not None
    assert RULES["krum"].select(vectors, 1) == (6,)
    assert abs(RULES["bulyan"].aggregate(vectors, 1)[77]) < 2


def test_the_mean_around_the_median_takes_the_smaller_of_two_equally_far() -> None:
    """1 and 3 are equally far from 2; with one of three left out, 1 counts."""
    assert RULES["mean_around_median"].aggregate(np.float32([[3], [2], [1]]), 1) == [1.5]


def test_trimmed_sums_beyond_float32() -> None:
    """Values whose sum exceeds float32 have the mean that float64 gives, and they alone."""
    largest = np.finfo(np.float32).max
    vectors = np.ones((5, 40_000), np.float32)
    vectors[:, 7] = largest
    vectors[:, 8] = 1e38, 2e38, 3e38, 3.2e38, 3.4e38

    for name in ("trimmed_mean", "mean_around_median"):
        result = RULES[name].aggregate(vectors, 1)

        assert result[7] == largest
        assert (np.delete(result, [7, 8]) == 1).all()
    expected = np.float32((2e38 + 3e38 + 3.2e38) / 3)
    np.testing.assert_allclose(RULES["trimmed_mean"].aggregate(vectors, 1)[8], expected, rtol=1e-6)


def test_a_row_may_be_the_geometric_median() -> None:
    """Where the others pull a row by less than 1 in all, it is the median, smoothing or not."""
    vectors = np.float32([[1, 0], [0, 3], [0, 0], [-2, -1]])

    np.testing.assert_allclose(
        RULES["geometric_median"].aggregate(vectors, 1), [0, 0], rtol=0, atol=1e-5
    )


def test_a_majority_of_equal_rows_is_the_geometric_median() -> None:
    """If more than half of the rows are equal, the result is that row, bit for bit."""
    vectors = np.random.default_rng(6).standard_normal((7, 100), dtype=np.float32)
    vectors[[0, 2, 5, 6]] = vectors[2]

    assert (RULES["geometric_median"].aggregate(vectors, 3) == vectors[2]).all()


def test_clipping_leaves_no_row_out() -> None:
    """Moving any row, near or far, moves the centre."""
    vectors = np.random.default_rng(7).standard_normal((7, 100), dtype=np.float32)
    vectors[6] *= 1e6
    before = RULES["centered_clipping"].aggregate(vectors, 2)
    for row in range(7):
        moved = vectors.copy()
        moved[row] *= -1

        assert np.linalg.norm(RULES["centered_clipping"].aggregate(moved, 2) - before) > 0.1


@pytest.mark.parametrize("name", ["centered_clipping", "geometric_median"])
@pytest.mark.parametrize("outlier", [40.0, 1e6, 1e19, 3e38])
def test_the_direction_of_a_far_row_counts(name: str, outlier: float, naive: Naive) -> None:
    """A row at any distance pulls as far as its direction says, which its distances do not tell."""
    chance = np.random.default_rng(8)
    vectors = chance.standard_normal((7, 2000), dtype=np.float32) * np.float32(0.03)
    vectors[6] = outlier / 2 * chance.uniform(-1, 1, 2000)
    expected = naive(name, vectors, 1)

    np.testing.assert_allclose(RULES[name].aggregate(vectors, 1), expected, rtol=0, atol=3e-5)
