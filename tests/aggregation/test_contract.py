"""What every rule owes its callers: the numbered MUSTs of byzsgd.aggregation, rule by rule."""

import doctest
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byzsgd import aggregation
from byzsgd.aggregation import RULES, AggregationError, Rule, average
from byzsgd.vectors import Vector

N, F, D = 11, 2, 257  # Enough rows for every rule's bound.
FLOAT32_MAX = float(np.finfo(np.float32).max)

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
every_selection = pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if rule.select], ids=lambda rule: rule.name
)


WEIGHED = ("centered_clipping", "geometric_median")
"""Rules that weigh rows by their distances: in the last digits they depend on the order in which
those are summed up, and on whether they fit into float32."""

ASCENDING = ("bulyan", "mean_around_median")
"""Rules that sum up values in ascending order."""


def assert_equal(
    found: np.ndarray, expected: np.ndarray, rule: Rule, but: Sequence[str] = WEIGHED
) -> None:
    """Equal numbers, but of some rules only almost equal ones."""
    slack = 2e-6 * float(np.abs(expected).max()) if rule.name in but else 0.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=slack)


def gaussian(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def ordered(votes: dict[str, Vector]) -> list[Vector]:
    """Rows ordered by identity: what a caller owes a rule."""
    return [votes[identity] for identity in sorted(votes)]


# The table


def test_rules_go_by_their_names() -> None:
    """The table holds every rule under the name that cluster files use, in alphabetical order."""
    names = [
        "average",
        "bulyan",
        "centered_clipping",
        "coordinate_median",
        "geometric_median",
        "krum",
        "mda",
        "mean_around_median",
        "monna",
        "multi_krum",
        "trimmed_mean",
    ]

    assert [rule.name for rule in RULES.values()] == list(RULES) == names


def test_rules_are_plain_functions_too() -> None:
    """Every rule, and every selection, can be imported by its name."""
    for name, rule in RULES.items():
        assert getattr(aggregation, name) is rule.aggregate
        if rule.select:
            assert getattr(aggregation, f"{name}_subset") is rule.select


@every_rule
def test_examples_are_true(rule: Rule) -> None:
    """The example in a rule's docstring prints what it says."""
    module = sys.modules[rule.aggregate.__module__]

    assert doctest.testmod(module, extraglobs={"np": np}) == (0, 1)


@pytest.mark.parametrize(
    ("name", "n", "f", "sentence"),
    [
        ("average", 1, 0, None),
        ("average", 1, 5, None),
        ("average", 0, 0, "average needs n >= 1, but 0 < 1"),
        ("coordinate_median", 1, 0, None),
        ("coordinate_median", 5, 2, None),
        ("coordinate_median", 4, 2, "coordinate_median needs n >= 2 f + 1, but 4 < 5"),
        ("mda", 1, 0, None),
        ("mda", 5, 2, None),
        ("mda", 4, 2, "mda needs n >= 2 f + 1, but 4 < 5"),
        ("bulyan", 3, 0, None),
        ("bulyan", 11, 2, None),
        ("bulyan", 10, 2, "bulyan needs n >= 4 f + 3, but 10 < 11"),
        ("centered_clipping", 4, 2, "centered_clipping needs n >= 2 f + 1, but 4 < 5"),
        ("geometric_median", 4, 2, "geometric_median needs n >= 2 f + 1, but 4 < 5"),
        ("mean_around_median", 4, 2, "mean_around_median needs n >= 2 f + 1, but 4 < 5"),
        ("monna", 4, 2, "monna needs n >= 2 f + 1, but 4 < 5"),
        ("multi_krum", 6, 2, "multi_krum needs n >= 2 f + 3, but 6 < 7"),
        ("trimmed_mean", 4, 2, "trimmed_mean needs n >= 2 f + 1, but 4 < 5"),
        ("krum", 3, 0, None),
        ("krum", 7, 2, None),
        ("krum", 5, 2, "krum needs n >= 2 f + 3, but 5 < 7"),
        ("krum", 6, 2, "krum needs n >= 2 f + 3, but 6 < 7"),
    ],
)
def test_bounds(name: str, n: int, f: int, sentence: str | None) -> None:
    """Check says nothing where the bound holds, and else which inequality fails by how much."""
    assert RULES[name].check(n, f) == sentence


@every_rule
@pytest.mark.parametrize("n", range(12))
@pytest.mark.parametrize("f", range(5))
def test_a_rule_refuses_exactly_what_its_check_reports(rule: Rule, n: int, f: int) -> None:
    """A rule refuses n vectors with its check's sentence, and takes them where there is none."""
    vectors = gaussian(n, 3)

    if sentence := rule.check(n, f):
        with pytest.raises(AggregationError) as refusal:
            rule.aggregate(vectors, f)
        assert str(refusal.value) == sentence
    else:
        assert rule.aggregate(vectors, f).shape == (3,)


# Input


@every_rule
def test_containers_and_strides_do_not_matter(rule: Rule) -> None:
    """An array, a list, a tuple, reversed, sliced and column-major rows give the same bits."""
    vectors = gaussian(N, D)
    spread = np.zeros((N, 2 * D), np.float32)
    spread[:, ::2] = vectors
    backwards = np.ascontiguousarray(vectors[:, ::-1])
    expected = rule.aggregate(vectors, F).tobytes()

    assert rule.aggregate(list(vectors), F).tobytes() == expected
    assert rule.aggregate(tuple(row.copy() for row in vectors), F).tobytes() == expected
    assert rule.aggregate(spread[:, ::2], F).tobytes() == expected
    assert rule.aggregate(backwards[:, ::-1], F).tobytes() == expected
    assert rule.aggregate(np.asfortranarray(vectors), F).tobytes() == expected


@every_rule
def test_arrival_order_does_not_matter(rule: Rule) -> None:
    """A thousand arrival orders of the same votes, ordered by identity, give the same bits."""
    chance = np.random.default_rng(1)
    vectors = chance.integers(-2, 3, (N, D)).astype(np.float32)  # Full of ties.
    vectors[5] = vectors[1]
    votes = {f"w{index:02}": row for index, row in enumerate(vectors)}
    expected = rule.aggregate(vectors, F).tobytes()

    for _ in range(1000):
        arrived = {f"w{index:02}": votes[f"w{index:02}"] for index in chance.permutation(N)}
        assert rule.aggregate(ordered(arrived), F).tobytes() == expected


@every_rule
@settings(max_examples=200)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(7, 10), st.integers(1, 4)),
        elements=st.floats(-FLOAT32_MAX, FLOAT32_MAX, width=32, allow_subnormal=True),
    )
)
def test_finite_rows_give_a_finite_vector_within_their_box(rule: Rule, vectors: np.ndarray) -> None:
    """Whatever the finite rows, the result is finite and between them, up to rounding."""
    before = vectors.copy()
    result = rule.aggregate(vectors, 1)
    slack = 1e-6 * np.abs(vectors).max(axis=0).astype(np.float64) + 1e-44

    assert np.isfinite(result).all()
    assert (result >= vectors.min(axis=0) - slack).all()
    assert (result <= vectors.max(axis=0) + slack).all()
    assert vectors.tobytes() == before.tobytes()


@every_rule
@pytest.mark.parametrize("n", [N, N + 1])
@pytest.mark.parametrize("as_list", [False, True])
def test_input_is_never_changed_nor_aliased(rule: Rule, n: int, as_list: bool) -> None:
    """Rows and their list stay as they were, and writing to the result does not reach them."""
    for f in (0, F):
        vectors = gaussian(n, D)
        given_rows: Sequence[Vector] | np.ndarray = list(vectors) if as_list else vectors
        before = vectors.tobytes()
        vectors.flags.writeable = False
        result = rule.aggregate(given_rows, f)
        result[:] = 0

        assert len(given_rows) == n
        assert vectors.tobytes() == before
        assert not np.shares_memory(result, vectors)


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if not rule.check(1, 0)], ids=lambda rule: rule.name
)
@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_are_not_aliased(rule: Rule, n: int) -> None:
    """One row gives an equal, other vector; two rows give their mean, and stay as they were."""
    vectors = gaussian(n, D)
    before = vectors.copy()
    result = rule.aggregate(vectors, 0)

    assert not np.shares_memory(result, vectors)
    assert vectors.tobytes() == before.tobytes()
    np.testing.assert_allclose(result, vectors.mean(axis=0), rtol=1e-6, atol=1e-7)


@every_rule
@pytest.mark.parametrize("d", [1, 2, 8191, 8193, 32767, 32769, 65537])
def test_any_length_works(
    rule: Rule, d: int, naive: Callable[[str, np.ndarray, int], np.ndarray]
) -> None:
    """A length that is no multiple of a block gives what the definition gives for the whole."""
    vectors = gaussian(7, d)

    np.testing.assert_allclose(
        rule.aggregate(vectors, 1), naive(rule.name, vectors, 1), rtol=2e-6, atol=2e-6
    )


@every_rule
def test_rows_are_never_stacked(rule: Rule) -> None:
    """With an out, a rule needs less memory than one row, however many rows there are."""
    d = 1 << 20
    rows = [gaussian(1, d, seed)[0] for seed in range(N)]
    out = np.empty(d, np.float32)
    rule.aggregate([row[:9] for row in rows], F)  # What is kept between calls is made here.
    tracemalloc.start()
    try:
        rule.aggregate(rows, F, out=out)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < rows[0].nbytes


# Output


@every_rule
def test_out_takes_the_result(rule: Rule) -> None:
    """A rule writes to out, returns it, and leaves nothing of what it held before."""
    vectors = gaussian(N, D)
    out = np.full(D, np.nan, np.float32)
    result = rule.aggregate(vectors, F, out=out)

    assert result is out
    assert out.tobytes() == rule.aggregate(vectors, F).tobytes()


@every_rule
def test_results_are_plain_vectors(rule: Rule) -> None:
    """A result is (d,) float32, contiguous and writeable, also for rows of other strides."""
    result = rule.aggregate(np.asfortranarray(gaussian(N, D)), F)

    assert type(result) is np.ndarray
    assert (result.dtype, result.shape) == (np.float32, (D,))
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert result.flags.owndata


@every_rule
def test_rules_keep_no_state(rule: Rule) -> None:
    """The second call gives what the first gave, with other calls in between."""
    vectors = gaussian(N, D)
    first = rule.aggregate(vectors, F).tobytes()
    rule.aggregate(gaussian(N + 2, D, seed=1), F)
    rule.aggregate(gaussian(N, D + 9, seed=2), 0)

    assert rule.aggregate(vectors, F).tobytes() == first


@every_rule
def test_threads_do_not_disturb_one_another(rule: Rule) -> None:
    """Eight calls at once give what each gives alone."""
    inputs = [gaussian(N, 100_000, seed) for seed in range(8)]
    alone = [rule.aggregate(vectors, F).tobytes() for vectors in inputs]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda vectors: rule.aggregate(vectors, F).tobytes(), inputs))

    assert together == alone


# Selection


@every_selection
@pytest.mark.parametrize("f", [0, 1, 2])
def test_the_average_of_the_selected_rows_is_the_result(rule: Rule, f: int) -> None:
    """A selection is ascending, and the average of its rows is the rule's result, bit for bit."""
    assert rule.select is not None
    vectors = gaussian(N, 70_001)
    selected = rule.select(vectors, f)
    mean = average([vectors[index] for index in selected], 0)

    assert list(selected) == sorted(set(selected))
    assert mean.tobytes() == rule.aggregate(vectors, f).tobytes()


@every_selection
def test_selections_refuse_what_rules_refuse(rule: Rule) -> None:
    """A selection too violates no bound, and believes no row that is not finite."""
    assert rule.select is not None
    vectors = gaussian(N, D)
    vectors[3, 4] = np.nan

    for f in (0, F):
        with pytest.raises(AggregationError, match="row 3 has a coordinate that is not finite"):
            rule.select(vectors, f)
    with pytest.raises(AggregationError, match=f"{rule.name} needs n >= "):
        rule.select(vectors, N)


# Equivariance


@every_rule
@pytest.mark.parametrize("power", [-60, -3, 5, 60])
def test_scaling_the_rows_scales_the_result(rule: Rule, power: int) -> None:
    """Rows times a power of two give the result times it, exactly."""
    vectors = gaussian(N, D)
    scale = np.float32(2.0**power)

    assert_equal(rule.aggregate(vectors * scale, F) / scale, rule.aggregate(vectors, F), rule)


@every_rule
def test_mirroring_the_rows_mirrors_the_result(rule: Rule) -> None:
    """The negatives of the rows give the negative of the result."""
    vectors = gaussian(N, D)

    assert_equal(rule.aggregate(-vectors, F), -rule.aggregate(vectors, F), rule, ASCENDING)


@every_rule
def test_translating_the_rows_translates_the_result(rule: Rule) -> None:
    """Rows that share a large offset give the same rows' result, moved by it."""
    lattice = np.random.default_rng(3).integers(-50, 50, (N, D)).astype(np.float32)
    offset = np.float32(2.0**16)

    np.testing.assert_allclose(
        rule.aggregate(lattice + offset, F) - offset,
        rule.aggregate(lattice, F),
        atol=0.05,  # Rounding of the sums of eleven numbers of 2^16.
        rtol=0,
    )


@every_rule
def test_permuting_the_coordinates_permutes_the_result(rule: Rule) -> None:
    """A rule knows no order of coordinates."""
    vectors = gaussian(N, D)
    order = np.random.default_rng(4).permutation(D)

    assert_equal(rule.aggregate(vectors[:, order], F), rule.aggregate(vectors, F)[order], rule)


# Refusals


@every_rule
@pytest.mark.parametrize("where", [(0, 0), (3, 100), (N - 1, D - 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused(
    rule: Rule, where: tuple[int, int], value: float
) -> None:
    """One NaN or infinity anywhere is refused, and its row is named; f makes no difference."""
    vectors = gaussian(N, D)
    vectors[where] = value
    sentence = f"^row {where[0]} has a coordinate that is not finite$"

    for f in (0, F):
        with pytest.raises(AggregationError, match=sentence):
            rule.aggregate(vectors, f)


@every_rule
def test_infinities_that_cancel_are_refused(rule: Rule) -> None:
    """Opposite infinities, equal infinities and NaN everywhere are refused as well."""
    for values in ((np.inf, -np.inf), (np.inf, np.inf), (np.nan,) * N):
        vectors = gaussian(N, D)
        vectors[: len(values), 7] = values

        with pytest.raises(AggregationError, match="row 0 has a coordinate that is not finite"):
            rule.aggregate(vectors, F)


@every_rule
@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_must_be_finite_too(rule: Rule, n: int) -> None:
    """One row alone is not believed either."""
    if rule.check(n, 0) is None:
        vectors = gaussian(n, D)
        vectors[n - 1, 5] = np.inf

        with pytest.raises(AggregationError, match=f"row {n - 1} has a coordinate"):
            rule.aggregate(vectors, 0)


@every_rule
@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        ([], "needs n >="),
        (np.zeros((0, 3), np.float32), "needs n >="),
        (np.zeros((N, 0), np.float32), "vectors have no coordinates"),
        (np.zeros(N, np.float32), r"vectors must be \(n, d\); found the shape \(11,\)"),
        (np.zeros((N, 8, 8), np.float32), r"vectors must be \(n, d\)"),
        (np.array(1, np.float32), r"vectors must be \(n, d\)"),
        (np.zeros((N, 3)), r"row 0 must be \(d,\) float32; found \(3,\) float64"),
        (np.zeros((N, 3), np.float16), "row 0 .* float16"),
        (np.zeros((N, 3), np.int32), "row 0 .* int32"),
        (np.zeros((N, 3), ">f4"), "row 0 .* >f4"),
        ([np.zeros((8, 8), np.float32)] * N, r"row 0 .*; found \(8, 8\) float32"),
        ([np.zeros(3, np.float32)] * 6 + [np.zeros(3)], "row 6 .* float64"),
        ([np.zeros(3, np.float32)] * 6 + [[0.0, 0.0, 0.0]], "row 6 .*; found list"),
        (
            [np.zeros(3, np.float32)] * 6 + [np.zeros(4, np.float32)],
            "row 6 has 4 coordinates, but row 0 has 3",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_shapes_and_dtypes_are_refused(rule: Rule, vectors: object, sentence: str) -> None:
    """What is not n rows of d float32 is refused, never cast, and the row is named."""
    with pytest.raises(AggregationError, match=sentence):
        rule.aggregate(vectors, F)  # type: ignore[arg-type]


@every_rule
@pytest.mark.parametrize("f", [-1, 1.0, None, True, "2"])
def test_an_f_that_is_no_count_is_refused(rule: Rule, f: object) -> None:
    """F counts vectors: it is an integer and not negative."""
    with pytest.raises(AggregationError, match="f must be an integer of at least 0; found"):
        rule.aggregate(gaussian(N, 3), f)  # type: ignore[arg-type]


@every_rule
@pytest.mark.parametrize(
    "out",
    [
        np.zeros(D + 1, np.float32),
        np.zeros((1, D), np.float32),
        np.zeros(D),
        np.zeros(2 * D, np.float32)[::2],
        [0.0] * D,
        np.broadcast_to(np.float32(0), D),
    ],
    ids=["longer", "shape", "float64", "strided", "list", "read-only"],
)
def test_an_out_that_does_not_fit_is_refused(rule: Rule, out: object) -> None:
    """Out must be a contiguous float32 vector of d coordinates that can be written to."""
    with pytest.raises(AggregationError, match=rf"^out must be \({D},\) float32"):
        rule.aggregate(gaussian(N, D), F, out=out)  # type: ignore[arg-type]


@every_rule
def test_an_out_within_the_input_is_refused(rule: Rule) -> None:
    """Writing the result over a row, selected or not, or over a part of it, is refused."""
    memory = gaussian(N, D).reshape(-1)
    vectors = memory.reshape(N, D)
    before = memory.tobytes()

    for index in range(N):
        with pytest.raises(AggregationError, match=f"^out shares memory with row {index}$"):
            rule.aggregate(vectors, F, out=vectors[index])
    with pytest.raises(AggregationError, match=r"^out shares memory with row 2$"):
        rule.aggregate(list(vectors), F, out=memory[2 * D + 10 : 3 * D + 10])
    assert memory.tobytes() == before
