"""Other libraries' aggregation rules, timed in a process of their environment (``make peers``).

Run by ``benchmarks/aggregation.py`` with ``.venv-peers/bin/python``; imports nothing of byzsgd.
It takes one order a line on standard input, as JSON, and answers with one on standard output::

    {"peer": "byzfl", "rule": "mda", "n": 10, "f": 3, "d": 1750000, "seed": 0}
    {"ms": 254.1}

or ``{"error": "..."}`` where the peer has no such rule or fails. ``ms`` is process CPU time on one
thread; the first order of a kind is done twice, and the second counts, unless that is too slow.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

MEMORY_MAX = 24 << 30
"""Bytes of address space: some peers list all subsets before they look at one."""

SLOW_MS = 20_000
"""A call that takes longer is not repeated."""

FAILURES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError)
FAILURES += (RuntimeError, TypeError, ValueError)


def torch_rule(rule: str, n: int, f: int, rows: Sequence[torch.Tensor]) -> Callable[[], object]:
    """The median as torch has it: the lower one."""
    stack = torch.stack(list(rows))
    values, indices = torch.empty(stack.shape[1]), torch.empty(stack.shape[1], dtype=torch.int64)
    return {"coordinate_median": partial(torch.median, stack, 0, out=(values, indices))}[rule]


def byzfl(rule: str, n: int, f: int, rows: Sequence[torch.Tensor]) -> Callable[[], object]:
    """ByzFL's; its torchvision, which only its data sets need, may not fit this torch."""
    sys.modules.setdefault("torchvision", MagicMock())
    import byzfl

    made: dict[str, Callable[[], Any]] = {
        "coordinate_median": byzfl.Median,
        "trimmed_mean": lambda: byzfl.TrMean(f),
        "multi_krum": lambda: byzfl.MultiKrum(f),
        "geometric_median": byzfl.GeometricMedian,
        "mda": lambda: byzfl.MDA(f),
    }
    return partial(made[rule](), rows)


def byzpy(rule: str, n: int, f: int, rows: Sequence[torch.Tensor]) -> Callable[[], object]:
    """ByzPy's."""
    from byzpy.aggregators import coordinate_wise, geometric_wise

    made: dict[str, Callable[[], Any]] = {
        "coordinate_median": coordinate_wise.CoordinateWiseMedian,
        "trimmed_mean": lambda: coordinate_wise.CoordinateWiseTrimmedMean(f),
        "multi_krum": lambda: geometric_wise.MultiKrum(f, n - f),
        "geometric_median": geometric_wise.GeometricMedian,
        "mda": lambda: geometric_wise.MinimumDiameterAveraging(f),
    }
    return partial(made[rule]().aggregate, rows)


def krum(rule: str, n: int, f: int, rows: Sequence[torch.Tensor]) -> Callable[[], object]:
    """The krum library's."""
    from krum.primitives.aggregators import brute, geometric_median, median, multikrum, trimmed_mean

    made: dict[str, Callable[[], Any]] = {
        "coordinate_median": lambda: partial(median.Median.aggregate, rows),
        "trimmed_mean": lambda: partial(trimmed_mean.TrimmedMean.aggregate, rows, f=f),
        "multi_krum": lambda: partial(multikrum.MultiKrum.aggregate, rows, n=n, f=f, m=n - f),
        "geometric_median": lambda: partial(
            geometric_median.GeometricMedian.aggregate, rows, n=n, f=f
        ),
        "mda": lambda: partial(brute.Brute.aggregate, rows, n=n, f=f),
    }
    call: Callable[[], object] = made[rule]()
    return call


def flower(rule: str, n: int, f: int, rows: Sequence[torch.Tensor]) -> Callable[[], object]:
    """Flower's."""
    from flwr.server.strategy import aggregate

    results = [([row.numpy()], 1) for row in rows]
    return {
        "coordinate_median": partial(aggregate.aggregate_median, results),
        "trimmed_mean": partial(aggregate.aggregate_trimmed_avg, results, f / n),
        "multi_krum": partial(aggregate.aggregate_krum, results, f, n - f),
    }[rule]


PEERS = {"torch": torch_rule, "byzfl": byzfl, "byzpy": byzpy, "krum": krum, "flower": flower}


@lru_cache(maxsize=1)
def rows(n: int, d: int, seed: int) -> list[torch.Tensor]:
    """Independent Gaussian vectors."""
    chance = np.random.default_rng(seed)
    return [torch.from_numpy(chance.standard_normal(d, dtype=np.float32)) for _ in range(n)]


def milliseconds(call: Callable[[], object]) -> float:
    """CPU time of a call."""
    start = time.process_time_ns()
    call()
    return (time.process_time_ns() - start) / 1e6


def answer(order: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """What an order comes to."""
    n, f = order["n"], order["f"]
    try:
        given = rows(n, order["d"], order["seed"])
        call = PEERS[order["peer"]](order["rule"], n, f, given)
        if (kind := json.dumps(order)) not in known:
            known.add(kind)
            if (first := milliseconds(call)) > SLOW_MS:
                return {"ms": first}
        return {"ms": milliseconds(call)}
    except FAILURES as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def main() -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    known: set[str] = set()
    # What peers print is not an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(answer(order, known)), file=answers, flush=True)


if __name__ == "__main__":
    main()
