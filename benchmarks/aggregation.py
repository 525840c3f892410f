"""Aggregation against the memory floor and other libraries, on one thread.

    make bench, or: python -m benchmarks.aggregation --json run/aggregation.json
    python -m benchmarks.aggregation --full        # also 25 million coordinates, and slow peers

Counts process CPU time. The floor is the mean of all rows, compiled as our median is, with the same
check that rows are finite: one loop that reads and writes the same memory and computes next to
nothing. All take turns, A B C A B C, each after an untimed call, so that nobody profits from the
caches that another has filled; ratios are taken within a round, and the median over the rounds
counts. Ours write to buffers that they reuse. The other libraries run in an environment of their
own (``make peers``), in one process that takes its turns too; without it they are left out.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
from benchmarks.rows import Row, markdown, write  # noqa: E402

from byzsgd.aggregation import PRE_STEPS, RULES, Rule, compose, jit  # noqa: E402
from byzsgd.aggregation.distances import squared_distances  # noqa: E402
from byzsgd.aggregation.mda import smallest_diameter_subset  # noqa: E402

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
D = 1_750_000
LARGE = 25_000_000
MEDIAN_PEERS = ("torch", "byzfl", "byzpy", "krum", "flower")
PEER_ROUNDS = 3
SLOW_MS = 20_000

Call = Callable[[], float]
"""Does something and returns the CPU milliseconds that it took."""


class Peers:
    """The process of the other libraries; see ``benchmarks/peers.py``."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_DISABLE_DOCKER_CPU_WARNING": "1"}
        self._process = subprocess.Popen(
            [PYTHON, ROOT / "benchmarks" / "peers.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def milliseconds(self, peer: str, rule: str, n: int, f: int, d: int) -> float:
        """What one call of a peer's rule takes; NaN where it fails."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        order = {"peer": peer, "rule": rule, "n": n, "f": f, "d": d, "seed": 0}
        print(json.dumps(order), file=stdin, flush=True)
        answer: dict[str, Any] = json.loads(stdout.readline())
        if "error" in answer:
            print(f"{peer} {rule} n {n} f {f}: {answer['error']}", flush=True)
        return float(answer.get("ms", "nan"))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def timed(call: Callable[[], object]) -> float:
    """CPU milliseconds of the second of two calls."""
    call()
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1e6


def gaussian(n: int, d: int) -> list[np.ndarray]:
    """Independent Gaussian rows, each an allocation of its own."""
    chance = np.random.default_rng(n)
    return [chance.standard_normal(d, dtype=np.float32) for _ in range(n)]


def floor(rows: Sequence[np.ndarray]) -> Call:
    """The compiled mean of all rows: one loop, which leaves reading ahead to the CPU."""
    n, result = len(rows), np.empty_like(rows[0])
    share = f"float 0x{struct.pack('>d', np.float32(1 / n)).hex()}"
    lines, total = [], "%row0"
    for k in range(1, n):
        lines.append(f"%sum{k} = fadd {jit.FLOATS} {total}, %row{k}")
        total = f"%sum{k}"
    shares = f"<{', '.join([share] * jit.LANES)}>"
    lines.append(f"%mean = fmul {jit.FLOATS} {total}, {shares}")
    with mock.patch.object(jit, "STREAMS_MAX", n):
        text = jit.assembly(n, lines, "%mean")
    pointer = jit.ctypes.c_void_p
    code = jit.assembled(text, pointer, pointer, pointer, jit.ctypes.c_int64)
    assert code is not None, "the floor needs the extra fast"
    kernel = jit.Kernel(code)
    assert kernel(rows, result)
    return partial(timed, partial(kernel, rows, result))


def composed(name: str) -> Rule:
    """A rule by its name, with pre-steps or without."""
    *pre_steps, rule = name.split(" + ")
    return compose(pre_steps, rule)


def ours(name: str, rows: Sequence[np.ndarray], f: int) -> Call:
    """One of our rules, writing to a buffer that it reuses."""
    out = np.empty_like(rows[0])
    return partial(timed, partial(composed(name).aggregate, rows, f, out=out))


def numpy_alone(call: Call) -> Call:
    """The same without compiled code."""

    def without() -> float:
        with mock.patch.object(jit, "contiguous", return_value=None):
            return call()

    return without


def measured(calls: Mapping[str, Call], rounds: int, few: Sequence[str] = ()) -> dict[str, Any]:
    """Milliseconds of each call in each round; those of ``few`` are done in the first rounds only.

    What is slow is done once.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            slow = bool(taken[name]) and not taken[name][0] < SLOW_MS
            if not slow and (name not in few or turn < PEER_ROUNDS):
                taken[name].append(call())
    return taken


def ratio(taken: Mapping[str, list[float]], one: str, other: str) -> float:
    """The median over the rounds of how many times another's time one takes."""
    return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=False))


def against(
    table: str,
    work: str,
    taken: Mapping[str, list[float]],
    name: str,
    target: str,
    peers: Sequence[str],
    peer_target: str,
) -> list[Row]:
    """A row of our time over the floor's, and one of the best peer's over ours."""
    mine = statistics.median(taken[name])
    low = statistics.median(taken["floor"])
    note = f"{mine:.2f} ms; floor {low:.2f} ms"
    rows = [Row(table, work, ratio(taken, name, "floor"), "x the floor", target, note)]
    ratios = {peer: ratio(taken, peer, name) for peer in peers}
    ratios = {peer: value for peer, value in ratios.items() if value == value}
    if ratios:
        best = min(ratios, key=ratios.__getitem__)
        words = ", ".join(f"{peer} {statistics.median(taken[peer]):.0f} ms" for peer in ratios)
        word = f"{work}, against the best peer"
        rows.append(Row(table, word, ratios[best], "x faster", peer_target, words))
    return rows


def medians(peers: Peers | None, d: int, counts: Sequence[int], rounds: int) -> list[Row]:
    """The coordinate-wise median, compiled and in NumPy alone."""
    table = f"Coordinate-wise median, d = {d:,}"
    found = []
    for q in counts:
        rows = gaussian(q, d)
        calls = {"floor": floor(rows), "ours": ours("coordinate_median", rows, 0)}
        if d == D:
            calls["NumPy"] = numpy_alone(ours("coordinate_median", rows, 0))
        names = () if peers is None else MEDIAN_PEERS if d == D else ("torch",)
        for peer in names:
            assert peers is not None
            calls[peer] = partial(peers.milliseconds, peer, "coordinate_median", q, 0, d)
        taken = measured(calls, rounds, names)
        limit = "<= 1.25" if q <= 10 else "<= 1.6"
        found += against(table, f"q = {q}", taken, "ours", limit, names, ">= 25")
        if d == D:
            limit = {5: "<= 3.5", 10: "<= 5.5", 15: "<= 6.5"}.get(q, "")
            found += against(table, f"q = {q}, NumPy alone", taken, "NumPy", limit, (), "")
    return found


def exact(peers: Peers | None, rounds: int, full: bool) -> list[Row]:
    """MDA: the whole call, and its selection alone."""
    table = f"Exact MDA, d = {D:,}"
    found = []
    goals = {(7, 2): 3.0, (10, 3): 3.0, (13, 4): 3.0, (30, 10): 3.5, (50, 16): 4.5, (100, 33): 7.0}
    for (n, f), limit in goals.items():
        rows = gaussian(n, D)
        calls = {"floor": floor(rows), "ours": ours("mda", rows, f)}
        calls["average"] = ours("average", rows, 0)
        names = {10: ["byzfl", "byzpy"], 30: ["byzpy"]}.get(n, []) if peers else []
        if peers and full:
            names = {10: [*names, "krum"]}.get(n, names)  # At (30, 10) others take hours.
        for peer in names:
            assert peers is not None
            calls[peer] = partial(peers.milliseconds, peer, "mda", n, f, D)
        taken = measured(calls, rounds if n < 50 else 3, names)
        goal = {10: ">= 20", 30: ">= 100"}.get(n, "")
        found += against(table, f"({n}, {f})", taken, "ours", f"<= {limit}", names, goal)
        if n > jit.STREAMS_MAX:
            word = f"({n}, {f}): average, which asks ahead"
            found += against(table, word, taken, "average", "", (), "")
        if n == 100:
            seconds = statistics.median(taken["ours"]) / 1e3
            found.append(Row(table, "(100, 33)", seconds, "s CPU", "<= 0.4"))
    for n, goal in ((30, "<= 1"), (100, "<= 5"), (200, "<= 30")):
        matrices = [
            squared_distances(list(np.random.default_rng(k).standard_normal((n, 20_000), "f4")))
            for k in range(5)
        ]
        calls = {
            str(k): partial(timed, partial(smallest_diameter_subset, matrix, n - n // 3))
            for k, matrix in enumerate(matrices)
        }
        times = [statistics.median(each) for each in measured(calls, 3).values()]
        note = f"5 matrices, the slowest {max(times):.2f} ms"
        word = f"selection alone, n = {n}, f = {n // 3}"
        found.append(Row(table, word, statistics.median(times), "ms", goal, note))
    return found


def rules(peers: Peers | None, rounds: int, full: bool) -> list[Row]:
    """Every rule, and chains of pre-steps where all are asked for."""
    found = []
    n, f = 10, 3
    goals = {"multi_krum": ">= 6", "trimmed_mean": ">= 90", "geometric_median": ">= 50"}
    rows = gaussian(n, D)
    chains = [*RULES, *(f"{name} + trimmed_mean" for name in PRE_STEPS)] if full else [*RULES]
    names = [name for name in chains if composed(name).check(n, f) is None]
    calls = {"floor": floor(rows)} | {name: ours(name, rows, f) for name in names}
    beside = {
        f"{rule} {peer}": (peer, rule)
        for rule in goals
        for peer in ("byzfl", "byzpy", "krum", "flower")
        if peers and (peer, rule) != ("flower", "geometric_median")
    }
    for name, (peer, rule) in beside.items():
        assert peers is not None
        calls[name] = partial(peers.milliseconds, peer, rule, n, f, D)
    taken = measured(calls, rounds, list(beside))
    for name in names:
        theirs = [key for key, (_, rule) in beside.items() if rule == name]
        table = f"Rules at (10, 3), d = {D:,}"
        found += against(table, name, taken, name, "", theirs, goals.get(name, ""))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--full", action="store_true", help="some ten minutes more")
    words = parser.parse_args()
    peers = Peers() if PYTHON.exists() else None
    if peers is None:
        print("without the peers: make peers installs them", flush=True)
    found = []
    parts: list[Callable[[], list[Row]]] = [
        partial(medians, peers, D, (4, 5, 7, 10, 15), words.rounds),
        partial(exact, peers, words.rounds, words.full),
        partial(rules, peers, words.rounds, words.full),
    ]
    if words.full:
        parts.append(partial(medians, peers, LARGE, (4, 5, 7, 10, 15), 3))
    for part in parts:
        done = part()
        print(markdown(done), flush=True)
        found += done
    if peers is not None:
        peers.close()
    if words.json:
        write(found, words.json)


if __name__ == "__main__":
    main()
