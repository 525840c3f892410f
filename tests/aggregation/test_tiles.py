"""Compiled distances and means against their plain twins in NumPy: equal bits."""

import importlib.util

import numpy as np
import pytest

from byzsgd.aggregation import average, jit, tiles
from byzsgd.aggregation.distances import BLOCK, CHUNK, squared_distances
from byzsgd.aggregation.mixture import Mixture
from byzsgd.aggregation.rule import AggregationError

D = jit.COORDINATES_MIN
LARGEST = float(np.finfo(np.float32).max)
EDGES = np.float32(
    [0, -0.0, 1e-45, -1e-45, 1e-38, 1e-25, 1e-19, 1, -1, 1.0000001, 1e15, -1e19, 1e25, -LARGEST]
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llvmlite") is None, reason="the extra fast is not installed"
)


def gaussian(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(1000 * n + d).standard_normal((n, d), dtype=np.float32)


def edges(n: int, d: int) -> np.ndarray:
    """Rows with blocks of common numbers, and blocks of what float32 squares get wrong."""
    chance = np.random.default_rng(1000 * n + d)
    vectors = gaussian(n, d)
    for low in range(0, d, 2 * BLOCK):
        block = vectors[:, low : low + BLOCK]
        block[...] = chance.choice(EDGES, block.shape)
    return vectors


CASES = {
    "gaussian": gaussian,
    "edges": edges,
    "offset": lambda n, d: gaussian(n, d) * np.float32(1e-2) + np.float32(1e4),
    "all squares vanish": lambda n, d: gaussian(n, d) * np.float32(1e-25),
    "all squares overflow": lambda n, d: gaussian(n, d) * np.float32(1e25),
    "equal": lambda n, d: np.repeat(gaussian(1, d), n, axis=0),
    "one far": lambda n, d: np.concatenate([gaussian(n - 1, d), np.full((1, d), 2e20, "f4")]),
    "zeros": lambda n, d: np.zeros((n, d), np.float32),
}


def plain(vectors: np.ndarray) -> np.ndarray:
    """Distances by NumPy alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "contiguous", lambda rows: None)
        return squared_distances(list(vectors))


def is_fast(monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray) -> bool:
    """Whether compiled code takes all whole blocks of the rows."""
    calls = []
    kernel = tiles.compiled(len(vectors), BLOCK)
    assert kernel is not None

    def counted(rows: object, low: int, count: int, squares: int) -> None:
        calls.append(count)
        kernel(rows, low, count, squares)

    monkeypatch.setattr(tiles, "compiled", lambda n, block: counted)
    squared_distances(list(vectors))
    monkeypatch.undo()
    return sum(calls) == vectors.shape[1] // BLOCK


@pytest.mark.parametrize("n", [*range(2, 18), 24, 25, 26, 31, 33])
def test_equal_bits_for_any_number_of_rows(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """However the rows are dealt out into tiles, and whatever of the last block there is."""
    for d in (D, D + 1, D + BLOCK - 1):
        vectors = gaussian(n, d)

        assert is_fast(monkeypatch, vectors)
        assert squared_distances(list(vectors)).tobytes() == plain(vectors).tobytes()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [2, 7, 10])
def test_equal_bits_whatever_the_numbers(case: str, n: int) -> None:
    """Numbers that float32 squares do not hold, rows that are equal or far, and common ones."""
    vectors = CASES[case](n, CHUNK * BLOCK + 3 * BLOCK + 17)

    assert squared_distances(list(vectors)).tobytes() == plain(vectors).tobytes()


@pytest.mark.parametrize("n", [100, 200])
def test_an_entry_depends_on_its_two_rows_alone(n: int) -> None:
    """Whatever tile a pair lies in, and how many others there are, its distance is the same."""
    vectors = edges(n, D + 5)
    squared = squared_distances(list(vectors))
    for i, j in np.random.default_rng(n).integers(0, n, (40, 2)):
        assert squared_distances(list(vectors[[i, j]]))[0, 1] == squared[i, j]


def test_groups_hold_every_row_once() -> None:
    """No row is left out of the tiles, and none is there twice."""
    for n in range(1, 300):
        assert [row for group in tiles.groups(n) for row in group] == list(range(n))


def test_more_rows_than_are_compiled_for_are_left_to_numpy() -> None:
    """One row has no pairs, and too many have too many."""
    assert tiles.compiled(1, BLOCK) is None
    assert tiles.compiled(tiles.ROWS_MAX + 1, BLOCK) is None


def test_addresses_need_not_be_aligned() -> None:
    """Rows may lie at any address, as those of a received message do."""
    vectors = gaussian(5, D + 3)
    rows = [np.frombuffer(b"123" + row.tobytes(), np.float32, -1, 3) for row in vectors]

    assert squared_distances(rows).tobytes() == plain(vectors).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 5 * BLOCK + 3, D - 1, D + 4])
def test_rows_that_are_not_finite_are_refused(value: float, column: int) -> None:
    """Wherever it is, also in what is left to NumPy."""
    vectors = gaussian(5, D + 5)
    vectors[3, column] = value

    with pytest.raises(AggregationError, match="row 3 has a coordinate that is not finite"):
        squared_distances(list(vectors))


# Means


@pytest.mark.parametrize("n", [1, 2, 7, jit.STREAMS_MAX, jit.STREAMS_MAX + 1, 67])
def test_means_have_equal_bits(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """The mean of any number of rows; sums that overflow are left to NumPy."""
    result = np.empty(D + 5, np.float32)
    for vectors in (gaussian(n, D + 5), edges(n, D + 5) / np.float32(2 * n)):
        assert jit.run_mean(list(vectors), result)
        with monkeypatch.context() as patch:
            patch.setattr(jit, "run_mean", lambda rows, result: False)
            assert average(vectors, 0).tobytes() == result.tobytes()
    large = np.full((n, D), LARGEST, np.float32)

    assert jit.run_mean(list(large), result[:D]) == (n == 1)
    assert (average(large, 0) == LARGEST).all()


@pytest.mark.parametrize("n", [2, 7, 33])
def test_weighted_sums_have_equal_bits(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """A mixture written at once has the bits of one that is read block by block."""
    weights = np.random.default_rng(n).random(n)
    for vectors in (gaussian(n, D + 5), edges(n, D + 5)):
        mixture = Mixture(list(vectors), weights / weights.sum())
        written, read = np.empty((2, D + 5), np.float32)
        mixture.write(written)
        monkeypatch.setattr(jit, "run_weighted", lambda rows, weights, result: False)
        mixture.write(read)
        monkeypatch.undo()

        assert written.tobytes() == read.tobytes()
    assert jit.run_weighted(list(gaussian(n, D + 5)), weights.astype(np.float32), written)
