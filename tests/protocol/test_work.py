"""The heavy work that nodes ask for, as pure functions of an effect."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import pytest

from byzsgd.aggregation.mda import mda, mda_subset
from byzsgd.protocol import Aggregate, ComputeGradient
from byzsgd.protocol.variance import Spread
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
    assert result.report.spread is None


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


def test_pre_steps_come_first() -> None:
    """The rule sees what they make of the votes; who is left out can then not be told."""
    effect = Aggregate(0, "mda", *votes(2, 4, 900), f=1, pre_steps=("nnm",))
    result = aggregate(effect)

    # Neighbours' means are 3, 3 and 452.
    assert result.vector == v(3)
    assert result.report.left_out == ()


def test_the_step_is_the_seed_of_pre_steps() -> None:
    """Every server puts the same votes into the same buckets, and others in other steps."""
    identities, vectors = votes(*(2.0**n for n in range(9)))
    medians = [
        aggregate(
            Aggregate(step, "coordinate_median", identities, vectors, 1, pre_steps=("bucketing",))
        ).vector.item()
        for step in (*range(20), *range(20))
    ]

    assert medians[:20] == medians[20:]
    assert len(set(medians)) > 5


def test_who_is_left_out_is_reported() -> None:
    """MDA names the votes that it did not select, by identity."""
    effect = Aggregate(0, "mda", *votes(2, 900, 4, 3), f=1, model=v(0), learning_rate=1)

    assert aggregate(effect).report.left_out == ("w2",)


@pytest.mark.parametrize("seed", range(5))
def test_an_update_is_that_of_the_rule(seed: int) -> None:
    """Bit for bit, though MDA's distances are computed here, for the spread."""
    vectors = tuple(np.random.default_rng(seed).normal(size=(7, 100)).astype(np.float32))
    identities = tuple(f"w{number}" for number in range(7))
    model = np.zeros(100, np.float32)
    result = aggregate(Aggregate(0, "mda", identities, vectors, 2, model=model, learning_rate=-1))

    assert result.report.spread is not None
    assert result.vector.tobytes() == mda(vectors, 2).tobytes()
    chosen = mda_subset(vectors, 2)
    assert result.report.left_out == tuple(f"w{row}" for row in range(7) if row not in chosen)


def test_the_spread_of_an_update() -> None:
    """2 f_w / (q_w - f_w), the variance of the selected gradients, and the square of their mean."""
    effect = Aggregate(0, "mda", *votes(2, 4, 900), f=1, model=v(0), learning_rate=1)

    # Selected 2 and 4, each at a distance of 1 from their mean.
    found = aggregate(effect).report.spread
    assert found == Spread(factor=2 / 2, count=2, variance=pytest.approx(2), square=9)


@pytest.mark.parametrize(
    "changes",
    [{"f": 0}, {"rule": "coordinate_median"}, {"model": None}, {"pre_steps": ("nnm",)}],
    ids=["nobody lies", "another rule", "models", "pre-steps"],
)
def test_no_spread_where_the_condition_says_nothing(changes: dict[str, Any]) -> None:
    """It is MDA's, about independent gradients of which some may lie."""
    effect = Aggregate(0, "mda", *votes(2, 4, 900), f=1, model=v(0), learning_rate=1)

    assert aggregate(replace(effect, **changes)).report.spread is None


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


# Buffers


def updated(*rows: tuple[float, ...], **changes: Any) -> Aggregate:
    """An update of four votes, of which two coordinates are parameters and one is a buffer."""
    names = tuple(f"w{n + 1}" for n in range(len(rows)))
    asked: dict[str, Any] = {"f": 1, "model": v(10, 20, 30), "learning_rate": 0.5, "buffers": 1}
    return Aggregate(7, "mda", names, tuple(v(*row) for row in rows), **asked | changes)


def test_buffers_are_the_median_of_what_workers_say() -> None:
    """No rule, no learning rate; parameters are updated as they would be without buffers."""
    rows = (2, 0, 5), (4, 0, 9), (900, 0, -1e30), (3, 0, 6)
    result = aggregate(updated(*rows))

    assert result.vector.tolist() == [10 - 0.5 * 3, 20, 5.5]
    assert result.report.left_out == ("w3",)


def test_what_is_said_of_buffers_moves_no_parameter() -> None:
    """Neither who is left out nor the variance condition looks at them."""
    near = (2, 0, 0), (4, 0, 0), (900, 0, 0), (3, 0, 0)
    far = (2, 0, 1e9), (4, 0, -1e9), (900, 0, 0), (3, 0, 5e9)
    one, other = (aggregate(updated(*rows)) for rows in (near, far))

    assert one.vector[:2].tolist() == other.vector[:2].tolist()
    assert one.report.left_out == other.report.left_out
    assert one.report.spread == other.report.spread


@pytest.mark.parametrize("rule", ["mda", "average", "coordinate_median"])
def test_liars_move_no_buffer_beyond_what_correct_workers_say(rule: str) -> None:
    """Whatever the rule of the gradients is: one lie of four, either way."""
    for lie in (1e30, -1e30):
        rows = (2, 0, 5), (2, 0, 6), (2, 0, 7), (2, 0, lie)
        buffer = aggregate(replace(updated(*rows), rule=rule)).vector[2]
        assert 5 <= buffer <= 7


def test_buffers_come_after_pre_steps_as_they_were() -> None:
    """Clipping a vector would clip the averages of a network."""
    rows = (2, 0, 500), (2, 0, 500), (2, 0, 500), (2, 0, 500)

    assert aggregate(updated(*rows, pre_steps=("clipping", "nnm"))).vector[2] == 500


def test_buffers_are_aggregated_beside_votes_that_stay_as_they_are() -> None:
    """Vectors that went in are kept by others."""
    effect = updated((2, 0, 5), (4, 0, 9), (3, 0, 6), (3, 0, 6))
    vectors = [vector.copy() for vector in effect.vectors]
    result = aggregate(effect).vector
    result += 100

    assert [vector.tolist() for vector in vectors] == [each.tolist() for each in effect.vectors]
    assert effect.model is not None
    assert effect.model.tolist() == [10, 20, 30]


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


def test_buffers_are_sent_as_they_are() -> None:
    """Their new values are no gradients: momentum and norm are those of the parameters."""
    effect = replace(asked(v(4, 700), 0.75), buffers=1)
    computed = compute_gradient(effect, twice)

    assert computed.vector.tolist() == [3.5, 4]
    assert computed.norm == 3.5


def test_a_gradient_is_timed_with_the_clock_of_the_caller() -> None:
    """Seconds are a difference of two readings."""
    assert compute_gradient(asked(None, 0), twice, ticking(1, 4)).seconds == 3
