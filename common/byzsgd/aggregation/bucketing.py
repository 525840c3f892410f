"""Bucketing: vectors are shuffled, and every two become their mean."""

import hashlib
from collections.abc import Sequence

import numpy as np

from byzsgd.aggregation.mixture import Mixture, Row
from byzsgd.aggregation.pre_step import PreStep

SIZE = 2
"""Vectors in a bucket: each one more makes liars relatively more, and 2 suits, says the paper."""


def bucketing(rows: Sequence[Row], f: int, seed: int) -> list[Row]:
    """The means of buckets of two rows each, shuffled by the seed; of odd n one stays alone.

    Args:
        rows: n rows of length d, ordered by identity, finite.
        f: Not used: a liar spoils one bucket at most, so there are no more liars than before.
        seed: Says how the rows are shuffled: equal on all servers, and another in every step.

    Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing".
    """
    del f
    n = len(rows)
    order = shuffled(n, seed)
    buckets: list[Row] = []
    for low in range(0, n, SIZE):
        chosen = order[low : low + SIZE]
        weights = np.zeros(n)
        weights[chosen] = 1 / len(chosen)
        buckets.append(Mixture(rows, weights))
    return buckets


def shuffled(n: int, seed: int) -> list[int]:
    """The numbers below n in an order that the seed alone decides, on every machine, for ever."""

    def digest(index: int) -> bytes:
        return hashlib.blake2b(f"{seed} {index}".encode(), digest_size=16).digest()

    return sorted(range(n), key=digest)


BUCKETING = PreStep(
    name="bucketing",
    mix=bucketing,
    per_f=0,
    bucket=SIZE,
    kappa_formula="not proven for every order",
    cost="O(n d)",
    use="Workers' data differ, fewer than a quarter lie, and nnm takes too long.",
    paper="Karimireddy, He, Jaggi, Byzantine-Robust Learning on Heterogeneous Datasets via "
    "Bucketing, ICLR 2022",
)
