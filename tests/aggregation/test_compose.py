"""Pre-steps, and rules that begin with them."""

import doctest
import sys
import tracemalloc
from itertools import permutations
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzsgd.aggregation import PRE_STEPS, RULES, AggregationError, Rule, compose
from byzsgd.aggregation.bucketing import shuffled

N, F, D = 23, 2, 257  # Enough rows for every chain's bound.
LARGEST = float(np.finfo(np.float32).max)

CHAINS = [
    (pre_steps, rule)
    for count in (1, 2, 3)
    for pre_steps in permutations(PRE_STEPS, count)
    for rule in RULES
    if count == 1 or rule in ("krum", "mda", "trimmed_mean", "centered_clipping")
]
every_chain = pytest.mark.parametrize(
    "chain", [compose(*chain, seed=5) for chain in CHAINS], ids=lambda chain: chain.name
)


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def mixed(pre_step: str, vectors: np.ndarray, f: int, seed: int = 0) -> np.ndarray:
    """What a pre-step makes of vectors."""
    rows = PRE_STEPS[pre_step].mix(list(vectors), f, seed)
    return np.array([row[0 : vectors.shape[1]] for row in rows])


# The table


def test_pre_steps_go_by_their_names() -> None:
    """The table holds every pre-step under the name that cluster files use."""
    names = ["bucketing", "clipping", "nnm"]

    assert [step.name for step in PRE_STEPS.values()] == list(PRE_STEPS) == names


def test_the_example_is_true() -> None:
    """The example in the docstring of compose prints what it says."""
    module = sys.modules[compose.__module__]

    assert doctest.testmod(module, extraglobs={"np": np}) == (0, 1)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_without_pre_steps_it_is_the_rule_itself(rule: Rule) -> None:
    """Nothing is put around a rule that begins with no pre-step."""
    assert compose([], rule.name, seed=7) is rule


@pytest.mark.parametrize(
    ("pre_steps", "rule", "sentence"),
    [
        (["nnm"], "mdaa", "there is no rule 'mdaa'"),
        (["mda"], "mda", "there is no pre-step 'mda'"),
        (["nnm", ""], "mda", "there is no pre-step ''"),
        (["nnm", "clipping", "nnm"], "mda", "a pre-step is there twice: nnm, clipping, nnm"),
    ],
)
def test_what_is_no_chain_is_refused(pre_steps: list[str], rule: str, sentence: str) -> None:
    """Names that are unknown, and a pre-step twice, whose cost would be that of a power."""
    with pytest.raises(AggregationError, match=f"^{sentence}$"):
        compose(pre_steps, rule)


# Bounds


@pytest.mark.parametrize(
    ("pre_steps", "rule", "n", "f", "sentence"),
    [
        (["nnm"], "mda", 5, 2, None),
        (["nnm"], "mda", 4, 2, "nnm + mda needs n >= 2 f + 1, but 4 < 5"),
        (["nnm"], "average", 4, 2, "nnm + average needs n >= 2 f + 1, but 4 < 5"),
        (["nnm"], "krum", 6, 2, "nnm + krum needs n >= 2 f + 3, but 6 < 7"),
        (["clipping"], "mda", 4, 2, "clipping + mda needs n >= 2 f + 1, but 4 < 5"),
        (["bucketing"], "mda", 9, 2, None),
        (["bucketing"], "mda", 8, 2, "bucketing + mda needs n >= 4 f + 1, but 8 < 9"),
        (["bucketing"], "krum", 12, 2, "bucketing + krum needs n >= 4 f + 5, but 12 < 13"),
        (["bucketing"], "bulyan", 20, 2, "bucketing + bulyan needs n >= 8 f + 5, but 20 < 21"),
        (["bucketing"], "average", 1, 9, None),
        (
            ["bucketing", "nnm"],
            "average",
            8,
            2,
            "bucketing + nnm + average needs n >= 4 f + 1, but 8 < 9",
        ),
    ],
)
def test_bounds(pre_steps: list[str], rule: str, n: int, f: int, sentence: str | None) -> None:
    """The check covers the whole chain, and says n as it was before the first pre-step."""
    assert compose(pre_steps, rule).check(n, f) == sentence


@every_chain
@pytest.mark.parametrize("f", range(3))
def test_a_chain_refuses_exactly_what_a_link_would(chain: Rule, f: int) -> None:
    """A chain takes n vectors if and only if every pre-step and the rule take what they see."""
    *names, rule = chain.name.split(" + ")
    for n in range(26):
        fits, size = n > 0, n
        for name in names:
            fits = fits and size >= PRE_STEPS[name].per_f * f + 1
            size = ceil(size / PRE_STEPS[name].bucket)
        fits = fits and RULES[rule].check(size, f) is None

        assert (chain.check(n, f) is None) == fits
        if fits:
            assert chain.aggregate(gaussian(n, 3), f).shape == (3,)
        else:
            with pytest.raises(AggregationError, match=f"needs n >= .*, but {n} <"):
                chain.aggregate(gaussian(n, 3), f)


# The contract of a rule


@every_chain
def test_the_result_is_that_of_the_rule_on_what_the_pre_steps_make(chain: Rule) -> None:
    """Pre-steps are done in their order, each on what the one before it made."""
    *names, rule = chain.name.split(" + ")
    vectors = expected = gaussian(N, 20_001)
    for name in names:
        expected = mixed(name, expected, F, seed=5)

    np.testing.assert_allclose(
        chain.aggregate(vectors, F), RULES[rule].aggregate(expected, F), rtol=0, atol=3e-5
    )


@every_chain
def test_containers_and_strides_do_not_matter(chain: Rule) -> None:
    """A list, sliced and column-major rows, and an out give the same bits; input stays."""
    vectors = gaussian(N, D)
    before = vectors.tobytes()
    spread = np.zeros((N, 2 * D), np.float32)
    spread[:, ::2] = vectors
    out = np.full(D, np.nan, np.float32)
    expected = chain.aggregate(vectors, F).tobytes()

    assert chain.aggregate(list(vectors), F, out=out) is out
    assert out.tobytes() == expected
    assert chain.aggregate(spread[:, ::2], F).tobytes() == expected
    assert chain.aggregate(np.asfortranarray(vectors), F).tobytes() == expected
    assert vectors.tobytes() == before


@every_chain
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), power=st.integers(-45, 38), common=st.booleans())
def test_finite_rows_give_a_finite_vector(chain: Rule, seed: int, power: int, common: bool) -> None:
    """Whatever the scale of the rows, equal ones or not, the result is finite and no longer."""
    chance = np.random.default_rng(seed)
    scales = 10.0 ** (power if common else chance.integers(-45, 39, (N, 1)))
    vectors = (chance.uniform(-1, 1, (N, 2)) * scales).clip(-LARGEST, LARGEST).astype(np.float32)
    vectors[1] = vectors[0]
    result = chain.aggregate(vectors, F)

    assert np.isfinite(result).all()
    assert np.abs(result).max() <= np.abs(vectors).max() * (1 + 1e-6) + 1e-44


@every_chain
def test_what_a_rule_refuses_a_chain_refuses(chain: Rule) -> None:
    """A row that is not finite is named as the caller knows it, and so is one that out shares."""
    vectors = gaussian(N, D)
    with pytest.raises(AggregationError, match=r"^out shares memory with row 4$"):
        chain.aggregate(vectors, F, out=vectors[4])
    with pytest.raises(AggregationError, match=r"^f must be an integer"):
        chain.aggregate(vectors, -1)
    for value in (np.nan, np.inf):
        vectors[17, 100] = value
        with pytest.raises(AggregationError, match=r"^row 17 has a coordinate that is not finite$"):
            chain.aggregate(vectors, F)


@pytest.mark.parametrize("rule", ["average", "krum", "mda", "trimmed_mean", "geometric_median"])
def test_mixtures_need_no_memory(rule: str) -> None:
    """With an out, all pre-steps together need less memory than two rows of 23."""
    chain = compose(["clipping", "nnm", "bucketing"], rule)
    d = 1 << 20
    rows = [gaussian(1, d, seed)[0] for seed in range(13)]
    out = np.empty(d, np.float32)
    chain.aggregate([row[:9] for row in rows], F)  # What is kept between calls is made here.
    tracemalloc.start()
    try:
        chain.aggregate(rows, F, out=out)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 2 * rows[0].nbytes


@every_chain
@pytest.mark.parametrize("outlier", [1e3, 3e38])
def test_far_liars_have_little_influence(chain: Rule, outlier: float) -> None:
    """Whatever comes before a robust rule leaves the result near the correct rows."""
    if chain.name.endswith("average"):
        return
    vectors = gaussian(N, 50) + np.float32(1)
    vectors[[3, 8]] = outlier
    correct = np.delete(vectors, [3, 8], axis=0)
    away = np.linalg.norm(chain.aggregate(vectors, F) - correct.mean(axis=0))

    assert away < 2 * np.linalg.norm(correct - correct.mean(axis=0), axis=1).max()


def test_kappa_of_nearest_neighbour_mixing_holds() -> None:
    """The result is within sqrt(kappa) standard deviations of the correct rows' mean."""
    chance = np.random.default_rng(2)
    for rule in RULES:
        chain = compose(["nnm"], rule)
        assert chain.kappa is not None
        for n, f in ((5, 1), (11, 2), (15, 3)):
            for outlier in (0, 1, 2, 5, 1e6):
                vectors = chance.standard_normal((n, 2)).astype(np.float32)
                vectors[n - f :] = outlier * chance.choice([-1, 1], 2)
                correct = vectors[: n - f].astype(np.float64)
                mean = correct.mean(axis=0)
                variance = ((correct - mean) ** 2).sum() / (n - f)
                if chain.check(n, f) is None:
                    away = np.linalg.norm(chain.aggregate(vectors, f) - mean)

                    assert away <= np.sqrt(chain.kappa(n, f) * variance) + 1e-5


def test_no_coefficient_is_claimed_where_none_is_proven() -> None:
    """Bucketing and clipping have none, and so has what contains them."""
    for pre_steps in (["bucketing"], ["clipping"], ["nnm", "clipping"], ["bucketing", "nnm"]):
        assert compose(pre_steps, "mda").kappa is None


# Nearest-neighbour mixing


def test_each_row_becomes_the_mean_of_its_nearest() -> None:
    """Itself and its n - f - 1 nearest others."""
    vectors = np.float32([[0], [1], [3], [10], [900]])

    np.testing.assert_allclose(mixed("nnm", vectors, 2)[:, 0], np.array([4, 4, 4, 14, 913]) / 3)


def test_mixing_brings_correct_rows_together() -> None:
    """The variance of what correct rows become is at most that of two liars' worth of them."""
    vectors = gaussian(9, 1000)
    vectors[8] = 7
    after = mixed("nnm", vectors, 1)[:8]

    assert after.var(axis=0).sum() < vectors[:8].var(axis=0).sum() / 8


@pytest.mark.parametrize("scale", [1e-30, 1, 1e25])
def test_mixing_is_right_at_every_scale(scale: float) -> None:
    """Far rows of one another's size do not blur who is nearest among the others."""
    vectors = gaussian(7, 100) * np.float32(scale)
    vectors[5] = 3e38
    vectors[6] = -3e38
    near = vectors[:5].astype(np.float64).mean(axis=0)

    np.testing.assert_allclose(mixed("nnm", vectors, 2)[:5], [near] * 5, atol=1e-6 * scale)


# Bucketing


def test_buckets_are_means_of_two() -> None:
    """Every row is in one bucket, and of an odd number one is alone."""
    vectors = (2.0 ** np.arange(7, dtype=np.float32)).reshape(7, 1)
    buckets = mixed("bucketing", vectors, 2, seed=3)[:, 0]

    assert len(buckets) == 4
    assert sum(buckets[:3] * 2) + buckets[3] == 127


def test_the_seed_alone_shuffles() -> None:
    """Any rows are shuffled alike under one seed, on any machine: these orders are for ever."""
    assert shuffled(7, 0) == [1, 0, 4, 3, 5, 2, 6]
    assert shuffled(7, 1) == [1, 5, 2, 0, 3, 6, 4]


def test_every_step_shuffles_anew() -> None:
    """Over many seeds every pair of rows shares a bucket about equally often."""
    together = np.zeros((6, 6))
    for seed in range(3000):
        order = shuffled(6, seed)
        for low in range(0, 6, 2):
            together[order[low], order[low + 1]] += 1
    together += together.T

    assert (abs(together[np.triu_indices(6, 1)] - 600) < 100).all()


# Clipping


def test_the_longest_rows_are_scaled_down() -> None:
    """Of n = 5 with f = 1 floor(2 / 5 * 4) = 1 row is clipped, to the second largest norm."""
    vectors = np.float32([[3, 4], [0, 1], [0, -2], [900, 0], [0, 0]])

    np.testing.assert_allclose(
        mixed("clipping", vectors, 1), [[3, 4], [0, 1], [0, -2], [5, 0], [0, 0]]
    )
    np.testing.assert_array_equal(mixed("clipping", vectors, 0), vectors)


def test_where_most_rows_are_zero_all_become_zero() -> None:
    """The norm that rows are scaled to may be 0."""
    vectors = np.float32([[0], [0], [0], [0], [7]])

    assert (mixed("clipping", vectors, 1) == 0).all()


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1, 1e25, 1e36])
def test_directions_stay(scale: float) -> None:
    """At every scale a clipped row has the norm it is clipped to and the direction it had."""
    vectors = gaussian(9, 100).clip(-3, 3) * np.float32(scale)
    vectors[4] *= 50
    after = mixed("clipping", vectors, 2).astype(np.float64)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    limit = np.sort(norms)[9 - 1 - 3]

    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.minimum(norms, limit), rtol=1e-3)
    np.testing.assert_allclose(after[4] / limit, vectors[4] / norms[4], atol=1e-3)
