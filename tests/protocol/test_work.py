"""The heavy work that nodes ask for, as pure functions of an effect."""

from collections.abc import Callable, Iterator
from math import sqrt

import numpy as np
import pytest

from byzsgd.protocol import Aggregate, ComputeGradient
from byzsgd.protocol.work import aggregate, compute_gradient
from byzsgd.vectors import Vector


def v(*coordinates: float) -> Vector:
    return np.float32(coordinates)


def votes(*values: float) -> tuple[tuple[str, ...], tuple[Vector, ...]]:
    """One vote a value, of w1, w2, ..."""
    return tuple(f"w{n + 1}" for n in range(len(values))), tuple(v(value) for value in values)


def ticking(*instants: float) -> Callable[[], float]:
    clock: Iterator[float] = iter(instants)
    return lambda: next(clock)


# Aggregation


def test_without_a_model_the_result_is_the_aggregate() -> None:
    """A median of models is a model, at the step that was asked for."""
    result = aggregate(Aggregate(7, "coordinate_median", *votes(1, 2, 5, 900), f=1))

    assert result.step == 7
    assert result.vector == v(3.5)
    assert result.report.left_out == ()
    assert result.report.variance_ratio is None


def test_with_a_model_the_result_is_the_update() -> None:
    """theta_{t+1} = theta_t - eta_t * F(gradients)."""
    effect = Aggregate(7, "mda", *votes(2, 4, 900), f=1, model=v(10), learning_rate=0.5)

    assert aggregate(effect).vector == v(10 - 0.5 * 3)


@pytest.mark.parametrize("rule", ["average", "coordinate_median", "mda"])
def test_no_vote_and_no_model_is_changed(rule: str) -> None:
    """Vectors that went in are kept by others: the result is new, and no alias."""
    identities, vectors = votes(2, 4, 6)
    model = v(10)
    effect = Aggregate(0, rule, identities, vectors, f=1, model=model, learning_rate=1)

    result = aggregate(effect).vector
    result += 100

    assert [vector.item() for vector in (*vectors, model)] == [2, 4, 6, 10]


def test_who_is_left_out_is_reported() -> None:
    """MDA names the votes that it did not select, by identity."""
    effect = Aggregate(0, "mda", *votes(2, 900, 4, 3), f=1, model=v(0), learning_rate=1)

    assert aggregate(effect).report.left_out == ("w2",)


def test_the_variance_ratio() -> None:
    """2 f_w / (q_w - f_w) times the spread of the selected gradients, over their mean's norm."""
    effect = Aggregate(0, "mda", *votes(2, 4, 900), f=1, model=v(0), learning_rate=1)

    # Selected 2 and 4: their spread about the mean of 3 is 1.
    assert aggregate(effect).report.variance_ratio == pytest.approx(2 / 2 * 1 / 3)


@pytest.mark.parametrize(("values", "f"), [((2.0, 4.0, 6.0), 0), ((-1.0, 0.0, 1.0), 1)])
def test_no_variance_ratio_where_it_says_nothing(values: tuple[float, ...], f: int) -> None:
    """There is none where nobody may lie, nor where the mean of all votes vanishes."""
    rule = "coordinate_median" if f else "mda"
    effect = Aggregate(0, rule, *votes(*values), f=f, model=v(0), learning_rate=1)

    assert aggregate(effect).report.variance_ratio is None


def test_a_gather_is_watched() -> None:
    """Distances of the own vote to the others', how much the gather shrank them, and the norm."""
    effect = Aggregate(
        5, "coordinate_median", ("s1", "s2", "s3"), (v(0, 0), v(3, 4), v(6, 8)), f=0, own="s1"
    )

    report = aggregate(effect).report

    assert report.distances == {"s2": 5, "s3": 10}
    assert report.norm == 5
    # From the contracted (3, 4) the others are 0 and 5 away; from the own vote 5 and 10.
    assert report.contraction == pytest.approx(2.5 / 7.5)


def test_a_gather_of_equal_models_has_no_contraction() -> None:
    """Where every model is the same already there is nothing to divide by."""
    effect = Aggregate(
        5, "coordinate_median", ("s1", "s2"), (v(sqrt(2)), v(sqrt(2))), f=0, own="s1"
    )

    assert aggregate(effect).report.contraction is None


def test_work_is_timed_with_the_clock_of_the_caller() -> None:
    """Seconds are a difference of two readings; without a clock they are 0."""
    effect = Aggregate(0, "average", *votes(1, 2), f=0)

    assert aggregate(effect, ticking(10, 12.5)).report.seconds == 2.5
    assert aggregate(effect).report.seconds == 0


# Gradients


def asked(momentum: Vector | None, beta: float) -> ComputeGradient:
    return ComputeGradient(3, v(1, 2), momentum, beta)


def twice(vector: Vector, step: int) -> tuple[Vector, float]:
    """A gradient of 2 theta, and a loss that is the step."""
    return 2 * vector, float(step)


def test_without_momentum_the_gradient_is_sent() -> None:
    """With beta = 0 a worker sends the gradient itself, even where there was one before."""
    computed = compute_gradient(asked(v(900, 900), 0), twice)

    assert computed.step == 3
    assert computed.loss == 3
    assert computed.vector.tolist() == [2, 4]


def test_momentum_starts_at_zero() -> None:
    """What is sent is m = beta * m + (1 - beta) * g, and m is zero at the start."""
    assert compute_gradient(asked(None, 0.75), twice).vector.tolist() == [0.5, 1]


def test_momentum_is_a_moving_average() -> None:
    """What is sent is m = beta * m + (1 - beta) * g; the momentum that went in is not changed."""
    momentum = v(4, 8)

    assert compute_gradient(asked(momentum, 0.75), twice).vector.tolist() == [3.5, 7]
    assert momentum.tolist() == [4, 8]


def test_a_gradient_is_timed_with_the_clock_of_the_caller() -> None:
    """Seconds are a difference of two readings."""
    assert compute_gradient(asked(None, 0), twice, ticking(1, 4)).seconds == 3
