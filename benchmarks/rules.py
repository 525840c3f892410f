"""Every aggregation rule and pre-step against the memory floor, on one thread.

    python benchmarks/rules.py
    python benchmarks/rules.py --d 25000000 --rounds 3

Prints process CPU time in milliseconds and how many times the floor's it is. The floor is the mean
of all rows, compiled as in ``benchmarks/median.py``: it reads and writes the same memory and
computes next to nothing. All take turns, A B C A B C, each with an untimed call first, so that
nobody profits from the caches that another has filled; the median over the rounds counts. Vectors
are independent Gaussian; ``--far`` moves f of them far away, where some rules take a second look.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
from median import floor, milliseconds

from byzsgd.aggregation import PRE_STEPS, RULES, compose


def contestants(n: int, f: int, d: int, far: bool) -> dict[str, Callable[[], object]]:
    """What takes turns, by name, the floor first; a rule whose bound n violates is left out."""
    vectors = np.random.default_rng(n).standard_normal((n, d), dtype=np.float32)
    if far:
        vectors[:f] *= 1e3
    rows = list(vectors)
    chains = [compose([], rule) for rule in RULES]
    chains += [compose([name], "trimmed_mean") for name in PRE_STEPS]
    chains += [compose(["nnm"], "mda")]
    calls: dict[str, Callable[[], object]] = {"floor": floor(rows, np.empty(d, np.float32))}
    for rule in chains:
        if rule.check(n, f) is None:
            calls[rule.name] = partial(rule.aggregate, rows, f, out=np.empty(d, np.float32))
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=1_750_000)
    parser.add_argument("--n", type=int, nargs="+", default=[10, 15])
    parser.add_argument("--f", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--far", action="store_true")
    words = parser.parse_args()
    for n in words.n:
        calls = contestants(n, words.f, words.d, words.far)
        turns = [
            {name: milliseconds(call) for name, call in calls.items()} for _ in range(words.rounds)
        ]
        taken = {name: statistics.median(turn[name] for turn in turns) for name in calls}
        print(f"n {n}  f {words.f}  d {words.d}")
        for name, ms in taken.items():
            print(f"  {name:28} {ms:8.2f} ms {ms / taken['floor']:7.2f}", flush=True)


if __name__ == "__main__":
    main()
