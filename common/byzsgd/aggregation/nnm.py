"""Nearest-neighbour mixing: every vector is replaced by the mean of its n - f nearest."""

from collections.abc import Sequence

import numpy as np

from byzsgd.aggregation.distances import nearest, squared_distances
from byzsgd.aggregation.mixture import Mixture, Row
from byzsgd.aggregation.pre_step import PreStep


def nnm(rows: Sequence[Row], f: int, seed: int) -> list[Row]:
    """For each row the mean of the n - f rows nearest to it, itself among them.

    It brings what is left of correct vectors close to one another, though their data differ, and
    drags a lie to the correct vectors that are nearest to it.

    Args:
        rows: n rows of length d, ordered by identity, finite; ``n >= 2 f + 1``.
        f: At most this many rows are Byzantine.
        seed: Not used.

    Invariant: ties take the lowest index.
    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing: A Recipe for
    Optimal Byzantine ML under Heterogeneity".
    """
    del seed
    n = len(rows)
    squared = squared_distances(rows)
    mixed: list[Row] = []
    for index in range(n):
        weights = np.zeros(n)
        weights[nearest(squared, index, n - f)] = 1 / (n - f)
        mixed.append(Mixture(rows, weights))
    return mixed


NNM = PreStep(
    name="nnm",
    mix=nnm,
    per_f=2,
    kappa=lambda n, f, kappa: 8 * f / (n - f) * (kappa + 1),
    kappa_formula="8 f / (n - f) (kappa + 1)",
    cost="O(n^2 d)",
    use="Workers' data differ: before any rule but average.",
    paper="Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, Fixing by Mixing: A Recipe for "
    "Optimal Byzantine ML under Heterogeneity, AISTATS 2023",
)
