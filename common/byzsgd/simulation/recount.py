"""What an aggregation must come to, computed in the plainest way: slow, and easy to believe."""

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from byzsgd.protocol import Aggregate, Aggregated

SUBSETS_MAX = 500
"""Subsets that are tried one by one; where there are more, nothing is recomputed."""

Rows = NDArray[np.float64]


def check_result(effect: Aggregate, result: Aggregated) -> None:
    """Compare the result of an aggregation with what it should be.

    Medians, averages and minimum-diameter averages are recomputed, where no pre-step changed the
    votes.

    Raises:
        AssertionError: If it is another one, by more than float32 loses.
    """
    if effect.buffers:
        d = len(result.vector) - effect.buffers
        _check_part(effect, result, slice(d))
        _check_part(
            replace(effect, rule="coordinate_median", pre_steps=(), model=None),
            result,
            slice(d, None),
        )
    else:
        _check_part(effect, result, slice(None))


def _check_part(effect: Aggregate, result: Aggregated, part: slice) -> None:
    """The same of some of the coordinates."""
    if effect.pre_steps:
        return
    rows = np.asarray(effect.vectors, np.float64)[:, part]
    if effect.rule == "coordinate_median":
        rows = _middles(rows)
    elif effect.rule == "mda" and comb(len(rows), effect.f) <= SUBSETS_MAX:
        rows = _selected(effect, result, rows)
    elif effect.rule != "average":
        return
    # What float32 loses is a part of the summands: a sum of them may be as good as nothing.
    expected = rows.mean(axis=0)
    size = np.abs(rows).max(axis=0)
    if effect.model is not None:
        model = effect.model[part]
        expected = model - np.float64(effect.learning_rate) * expected
        size = effect.learning_rate * size + np.abs(model)
    wrong = np.abs(result.vector[part] - expected) > 1e-5 * size + 1e-30

    assert not wrong.any(), f"{effect.rule} of step {effect.step} is another vector"


def _middles(rows: Rows) -> Rows:
    """The middle of each coordinate, or its two middles, whose mean is the median."""
    n = len(rows)
    return np.sort(rows, axis=0)[(n - 1) // 2 : n // 2 + 1]


def _selected(effect: Aggregate, result: Aggregated, rows: Rows) -> Rows:
    """The rows that were not left out, which are n - f of no larger diameter than any others."""
    chosen = [row for row, who in enumerate(effect.identities) if who not in result.report.left_out]
    assert len(chosen) == len(rows) - effect.f, f"{len(chosen)} of {len(rows)} votes selected"
    apart = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))
    smallest = min(
        _diameter(apart, subset) for subset in combinations(range(len(rows)), len(chosen))
    )
    assert _diameter(apart, chosen) <= smallest * (1 + 1e-5), "not the smallest diameter"
    return rows[chosen]


def _diameter(apart: Rows, subset: tuple[int, ...] | list[int]) -> float:
    return float(apart[np.ix_(subset, subset)].max())
