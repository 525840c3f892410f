"""What liars have seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzsgd.simulation.sight import STEPS_KEPT, Sight
from byzsgd.vectors import Vector


def vector(value: float) -> Vector:
    return np.float32([value])


def seen(steps: int, history: int = 0) -> Sight:
    """Two nodes that said 10 t and 10 t + 2 at each step t."""
    sight = Sight(history)
    for step in range(steps):
        sight.note("b", step, vector(10 * step + 2))
        sight.note("a", step, vector(10 * step))
        sight.rows(step)
    return sight


def test_rows_are_ordered_by_identity() -> None:
    """The vectors of a step come in the order of identities, the first of each."""
    sight = seen(1)

    assert sight.note("a", 0, vector(99)) == 2
    assert [float(row[0]) for row in sight.rows(0)] == [0, 2]


def test_the_first_step_stays() -> None:
    """The vectors of the first step that was looked at are never forgotten."""
    assert [float(row[0]) for row in seen(50).first] == [0, 2]


def test_what_each_said_last() -> None:
    """Of each node the newest vector is known, sorted by identity."""
    sight = seen(3)
    sight.note("a", 3, vector(7))

    assert [(who, float(row[0])) for who, row in sight.last.items()] == [("a", 7), ("b", 22)]


@pytest.mark.parametrize(
    ("history", "age"), [(1, 1), (2, 2), (3, 3), (4, 4), (20, 1), (20, 7), (20, 20)]
)
def test_means_of_the_past(history: int, age: int) -> None:
    """The mean of as many steps ago as are remembered."""
    sight = seen(40, history)

    assert sight.past(39 - age) == vector(10 * (39 - age) + 1)


def test_before_anything_is_remembered() -> None:
    """Of a step before all that is remembered, the oldest known mean is told."""
    assert seen(3, 20).past(-17) == vector(1)
    assert seen(40, 0).past(0) == vector(10 * (40 - STEPS_KEPT) + 1)


def test_no_mean_of_the_future() -> None:
    """Of a step that was not seen yet, the newest mean is told."""
    assert seen(3).past(9) == vector(21)


@given(st.lists(st.integers(0, 10**6)), st.integers(0, 30))
def test_memory_is_bounded(steps: list[int], history: int) -> None:
    """Whatever steps vectors are labelled with, no more of them are kept than was asked for."""
    sight = Sight(history)
    for step in steps:
        sight.note("a", step, vector(step))

    assert len(sight._steps) <= STEPS_KEPT
    assert len(sight._means) <= history + 1
