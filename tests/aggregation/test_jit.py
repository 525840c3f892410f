"""Compiled medians and trimmed means against their plain twins in NumPy: equal bits, or left."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from byzsgd.aggregation import AggregationError, coordinate_median, jit, trimmed_mean
from byzsgd.aggregation.network import median_network, middle_network
from byzsgd.vectors import Vector

D = jit.COORDINATES_MIN
LARGEST = float(np.finfo(np.float32).max)
EDGES = np.float32(
    [0.0, -0.0, 1e-45, -1e-45, 3e-45, 4e-45, 1e-38, 1.0, -1.0, 1.0000001, LARGEST, -LARGEST, 3e38]
)

with_llvmlite = pytest.mark.skipif(
    importlib.util.find_spec("llvmlite") is None, reason="the extra fast is not installed"
)


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    """No kernel is cached, neither before nor after."""
    jit.compiled.cache_clear()
    yield
    jit.compiled.cache_clear()


def plain(rows: Sequence[Vector] | np.ndarray, f: int = 0) -> Vector:
    """The median by NumPy alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "run", lambda network, rows, result: False)
        return coordinate_median(rows, f)


def is_fast(rows: Sequence[Vector] | np.ndarray) -> bool:
    """Whether compiled code takes the rows."""
    result = np.empty(len(rows[0]), np.float32)
    return jit.run(median_network(len(rows)), list(rows), result)


def edges(n: int, d: int) -> np.ndarray:
    """Rows of what arithmetic gets wrong, in half of the coordinates, and of common numbers."""
    chance = np.random.default_rng(1000 * n + d)
    common = chance.standard_normal(len(EDGES), dtype=np.float32)
    return chance.choice(np.concatenate([EDGES, common]), (n, d))


# Equal bits


@with_llvmlite
@pytest.mark.parametrize("n", range(1, jit.ROWS_MAX + 1))
def test_equal_bits_for_any_number_of_rows(n: int) -> None:
    """For 1 to ROWS_MAX rows and any tail, zeros, denormals and the largest numbers included."""
    for d in (D, D + 1, D + jit.LANES - 1, 2 * D + jit.LANES):
        vectors = edges(n, d)

        assert is_fast(vectors)
        assert coordinate_median(vectors, 0).tobytes() == plain(vectors).tobytes()


@with_llvmlite
@pytest.mark.parametrize(("n", "f"), [(3, 0), (4, 0), (7, 2), (10, 3), (15, 3), (32, 1)])
def test_equal_bits_for_trimmed_means(n: int, f: int) -> None:
    """However many values are left, even or odd; sums that overflow are left to NumPy."""
    small = np.clip(edges(n, 2 * D + 5), -LARGEST / 64, LARGEST / 64)
    result = np.empty(2 * D + 5, np.float32)

    assert jit.run(middle_network(n, f), list(small), result)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit, "run", lambda network, rows, result: False)
        assert trimmed_mean(small, f).tobytes() == result.tobytes()
    large = np.full((n, D), LARGEST, np.float32)
    large[:, 1:] = small[:, 1:D]
    result = result[:D]

    assert not jit.run(middle_network(n, f), list(large), result)
    assert trimmed_mean(large, f)[0] == LARGEST


@with_llvmlite
@pytest.mark.parametrize("n", [4, 5, 10])
def test_equal_bits_for_a_million_coordinates(n: int) -> None:
    """For vectors longer than every cache, of a length that is no multiple of anything."""
    vectors = edges(n, 1_000_003)

    assert is_fast(vectors)
    assert coordinate_median(vectors, 0).tobytes() == plain(vectors).tobytes()


@with_llvmlite
@settings(max_examples=200)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(jit.LANES, 3 * jit.LANES)),
        elements=st.floats(-LARGEST, LARGEST, width=32) | st.sampled_from(EDGES.tolist()),
    )
)
@example(np.full((2, jit.LANES), -0.0, np.float32))
@example(np.full((1, jit.LANES), -0.0, np.float32))
@example(np.full((4, jit.LANES), LARGEST, np.float32))
def test_equal_bits_whatever_the_numbers(vectors: np.ndarray) -> None:
    """A kernel writes the bits that NumPy does, whatever the finite rows."""
    kernel = jit.compiled(median_network(len(vectors)), len(vectors))
    result = np.full(vectors.shape[1], np.nan, np.float32)

    assert kernel is not None
    assert kernel(list(vectors), result)
    assert result.tobytes() == plain(vectors).tobytes()


@with_llvmlite
@pytest.mark.parametrize("shift", [1, 2, 3, 4, 20])
def test_addresses_need_not_be_aligned(shift: int) -> None:
    """Rows and out may lie at any address, as those of a received message do."""
    vectors = edges(5, D + 3)
    length = vectors[0].nbytes
    rows = [np.frombuffer(bytes(shift) + row.tobytes(), np.float32, -1, shift) for row in vectors]
    memory = bytearray(b"#" * (shift + length + shift))
    out = np.frombuffer(memory, np.float32, D + 3, shift)

    assert is_fast(rows)
    assert coordinate_median(rows, 0, out=out) is out
    assert out.tobytes() == plain(vectors).tobytes()
    # And what lies before and after it stays as it was.
    assert memory[:shift] == memory[shift + length :] == b"#" * shift


@with_llvmlite
def test_out_is_written_anew_every_time() -> None:
    """Out can be reused: nothing of what it held gets into the next result."""
    out = np.full(D + 5, np.nan, np.float32)
    for n in (3, 4, 7):
        vectors = edges(n, D + 5)

        assert coordinate_median(vectors, 0, out=out).tobytes() == plain(vectors).tobytes()


# Refusals


@with_llvmlite
@pytest.mark.parametrize("n", [1, 4, 5, 32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_seen(n: int, value: float) -> None:
    """Wherever it is, in any row and any lane, it is refused in the words of the plain twin."""
    vectors = edges(n, D + 5)
    places = [*range(jit.LANES), D // 2, *range(D - jit.LANES, D + 5)]
    for index, column in enumerate(places):
        row = index % n
        before, vectors[row, column] = vectors[row, column], value

        assert not is_fast(vectors)
        with pytest.raises(AggregationError, match=f"^row {row} has a coordinate that is not"):
            coordinate_median(vectors, 0)
        vectors[row, column] = before
    assert is_fast(vectors)


@with_llvmlite
def test_the_same_row_is_named() -> None:
    """Of several rows that are not finite, the one is named that the plain twin names."""
    vectors = edges(5, 4 * D)
    vectors[1, 4 * D - 1], vectors[3, 0], vectors[4, 0] = np.nan, np.inf, -np.inf

    with pytest.raises(AggregationError) as expected:
        plain(vectors)
    with pytest.raises(AggregationError) as refusal:
        coordinate_median(vectors, 0)
    assert str(refusal.value) == str(expected.value)


# Left to the plain twin


def strided(vectors: np.ndarray) -> np.ndarray:
    spread = np.zeros((len(vectors), 2 * vectors.shape[1]), np.float32)
    spread[:, ::2] = vectors
    return spread[:, ::2]


@pytest.mark.parametrize(
    "rearranged",
    [
        strided,
        np.asfortranarray,
        lambda vectors: np.ascontiguousarray(vectors[:, ::-1])[:, ::-1],
        lambda vectors: [*vectors[:-1], strided(vectors)[-1]],
    ],
    ids=["strided", "column-major", "reversed", "last row strided"],
)
def test_strides_are_left_to_numpy(rearranged: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rows whose coordinates are not one after the other have the same median."""
    vectors = edges(5, D)
    rows = rearranged(vectors)

    assert not is_fast(rows)
    assert coordinate_median(rows, 0).tobytes() == plain(vectors).tobytes()


@pytest.mark.parametrize(("n", "d"), [(jit.ROWS_MAX + 1, D), (5, D - 1), (5, 1)])
def test_many_rows_and_short_ones_are_left_to_numpy(n: int, d: int) -> None:
    """Nothing is compiled for what compiling would not pay for."""
    vectors = edges(n, d)

    assert not is_fast(vectors)
    assert coordinate_median(vectors, 0).tobytes() == plain(vectors).tobytes()


@pytest.mark.usefixtures("nothing_compiled")
def test_llvmlite_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without llvmlite the result has the same bits, and nobody hears of it."""
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    vectors = edges(5, D)

    assert not is_fast(vectors)
    assert coordinate_median(vectors, 0).tobytes() == plain(vectors).tobytes()


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("error", [OSError, RuntimeError, AttributeError])
def test_llvmlite_may_fail(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Where its library does not load or LLVM fails, the result has the same bits."""

    def engine(text: str) -> object:
        raise error

    monkeypatch.setattr(jit, "_engine", engine)
    vectors = edges(5, D)

    assert not is_fast(vectors)
    assert coordinate_median(vectors, 0).tobytes() == plain(vectors).tobytes()


@with_llvmlite
@pytest.mark.usefixtures("nothing_compiled")
def test_an_llvm_that_does_not_take_the_text_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """An LLVM with another assembly language is as good as none."""
    monkeypatch.setattr(jit, "assembly", lambda *words, **options: "define nothing")

    assert not is_fast(edges(5, D))


@with_llvmlite
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_process_that_may_not_make_code_uses_numpy() -> None:
    """Under MemoryDenyWriteExecute or its like the median still works: nothing ends the process."""
    script = (
        "import ctypes, sys, numpy; from byzsgd.aggregation import coordinate_median;"
        "PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1;"
        "ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) and sys.exit(77);"
        f"assert coordinate_median(numpy.ones((5, {D}), 'f4'), 2).sum() == {D};"
        "assert 'llvmlite.binding' in sys.modules"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], check=False, env={"PYTHONPATH": ":".join(sys.path)}
    )
    if done.returncode == 77:
        pytest.skip("NOT TESTED: no PR_SET_MDWE here; it takes Linux 6.3")
    assert done.returncode == 0


def test_llvmlite_is_loaded_by_those_who_need_it() -> None:
    """Neither an import nor a short median loads llvmlite."""
    script = (
        "import sys, numpy; from byzsgd.aggregation import coordinate_median;"
        "coordinate_median(numpy.zeros((5, 100), 'f4'), 2);"
        "sys.exit(any(module.startswith('llvmlite') for module in sys.modules))"
    )

    subprocess.run(
        [sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )


# Threads


@with_llvmlite
@pytest.mark.usefixtures("nothing_compiled")
def test_threads_may_compile_at_once() -> None:
    """Eight threads that meet before anything is compiled get what each would get alone."""
    barrier = Barrier(8)
    inputs = [edges(3 + k % 4, D + k) for k in range(8)]

    def median(vectors: np.ndarray) -> bytes:
        barrier.wait()
        return coordinate_median(vectors, 0).tobytes()

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(median, inputs))

    assert together == [plain(vectors).tobytes() for vectors in inputs]
    assert all(is_fast(vectors) for vectors in inputs)
