"""The coordinate-wise median against the memory floor, NumPy and torch, on one thread.

    python benchmarks/median.py
    python benchmarks/median.py --d 25000000 --q 10 --rounds 3

Prints process CPU time in milliseconds and, in brackets, how many times the floor's it is. The
floor is the mean of all rows, compiled as our median is, with the same check that rows are finite:
it reads and writes the same memory and computes next to nothing. All take turns, A B C A B C, each
with an untimed call first, so that nobody profits from the caches that another has filled; the
median over the rounds counts. Everyone writes to a buffer of its own that it reuses.
"""

import argparse
import statistics
import struct
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import numpy as np
import torch

from byzsgd.aggregation import coordinate_median, jit


def floor(rows: list[np.ndarray], result: np.ndarray) -> Callable[[], object]:
    """The compiled mean of all rows, ready to be called."""
    share = f"float 0x{struct.pack('>d', np.float32(1 / len(rows))).hex()}"
    lines = [f"%sum0 = fadd {jit.FLOATS} %row0, {jit.ZERO}"]
    lines += [f"%sum{k} = fadd {jit.FLOATS} %sum{k - 1}, %row{k}" for k in range(1, len(rows))]
    shares = f"<{', '.join([share] * jit.LANES)}>"
    lines.append(f"%mean = fmul {jit.FLOATS} %sum{len(rows) - 1}, {shares}")
    kernel = jit.assembled(jit.assembly(len(rows), lines, "%mean"))
    kernel(rows, result)
    np.testing.assert_allclose(result, np.mean(rows, axis=0), rtol=1e-3, atol=1e-6)
    return partial(kernel, rows, result)


def contestants(q: int, d: int) -> dict[str, Callable[[], object]]:
    """What takes turns, by name, the floor first."""
    stack = np.random.default_rng(q).standard_normal((q, d), dtype=np.float32)
    rows = list(stack)
    ours, plain, theirs, lowest = (np.empty(d, np.float32) for _ in range(4))
    tensor = torch.from_numpy(stack)
    values, indices = torch.empty(d), torch.empty(d, dtype=torch.int64)

    def without_jit() -> None:
        with mock.patch.object(jit, "run", return_value=False):
            coordinate_median(rows, 0, out=plain)

    return {
        "floor": floor(rows, lowest),
        "ours, jit": partial(coordinate_median, rows, 0, out=ours),
        "ours, NumPy": without_jit,
        "torch.median": partial(torch.median, tensor, 0, out=(values, indices)),
        "np.median": partial(np.median, stack, axis=0, out=theirs),
    }


def milliseconds(call: Callable[[], object]) -> float:
    """CPU time of the second of two calls."""
    call()
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=1_750_000)
    parser.add_argument("--q", type=int, nargs="+", default=[4, 5, 7, 10, 15])
    parser.add_argument("--rounds", type=int, default=9)
    words = parser.parse_args()
    torch.set_num_threads(1)
    for q in words.q:
        calls = contestants(q, words.d)
        turns = [
            {name: milliseconds(call) for name, call in calls.items()} for _ in range(words.rounds)
        ]
        taken = {name: statistics.median(turn[name] for turn in turns) for name in calls}
        cells = [f"{name} {ms:.2f} ({ms / taken['floor']:.2f})" for name, ms in taken.items()]
        print(f"d {words.d}  q {q:2}  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
