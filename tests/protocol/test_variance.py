"""The variance condition: its formulas, when it is told, and what is said of it."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzsgd.cluster import Cluster
from byzsgd.protocol.variance import (
    BATCH_GROWTH_MAX,
    MOMENTUM_MAX,
    RATIO_MAX,
    SPAN,
    Condition,
    Spread,
    State,
    batch_for,
    factor,
    momentum_for,
    momentum_variance,
    remedy,
    sentence,
    workers_for,
)

excesses = st.floats(1.001, 20)

FADED = ((0.5, 1.0), (0.9, 0.2), (4.0, 0.05))
"""Ratios and lengths of a training whose gradient is short before the condition fails."""


def seen(ratio: float, length: float = 1.0, count: int = 3) -> Spread:
    """What an update shows whose condition has that ratio, at a gradient of that length."""
    variance = (ratio * length) ** 2
    return Spread(factor=1.0, count=count, variance=variance, square=length**2 + variance / count)


def watched(*ratios_and_lengths: tuple[float, float], first: int = 0) -> Condition:
    """A condition that has seen each of these for as long as its averages reach back, and more."""
    condition, step = Condition(), first
    for ratio, length in ratios_and_lengths:
        for _ in range(10 * SPAN):
            condition.update(step, seen(ratio, length))
            step += 1
    return condition


# Formulas


@given(st.integers(1, 30), st.integers(0, 60))
def test_the_factor_is_one_for_four_workers(f: int, more: int) -> None:
    """2 f / (q - f) with q = n - f, which is at most 2 f / (f + 1) as n >= 3 f + 1."""
    quorum = 2 * f + 1 + more

    assert factor(3, 1) == 1
    assert 0 < factor(quorum, f) == 2 * f / (quorum - f) <= 2 * f / (f + 1)


@given(st.floats(0, 0.99))
def test_a_moving_average_has_a_smaller_variance(beta: float) -> None:
    """(1 - beta) / (1 + beta) of one gradient's: the sum of its squared weights."""
    weights = (1 - beta) * beta ** np.arange(5000)

    assert momentum_variance(beta) == pytest.approx(np.sum(weights**2), rel=1e-6)


@given(st.integers(1, 4096), excesses)
def test_a_larger_batch_divides_the_spread(batch: int, excess: float) -> None:
    """The spread falls with the root of the batch; the batch is the smallest that is enough."""
    larger = batch_for(batch, excess)

    assert sqrt(larger / batch) >= excess * (1 - 1e-6)
    assert sqrt((larger - 1) / batch) < excess


@given(st.floats(0, 0.95), excesses)
def test_a_longer_average_divides_the_spread(beta: float, excess: float) -> None:
    """The spread falls with the root of the variance; 0.01 less momentum would not be enough."""
    longer = momentum_for(beta, excess)
    wanted = momentum_variance(beta) / excess**2

    assert beta < longer <= 1
    assert momentum_variance(longer) <= wanted * 1.001
    assert momentum_variance(longer - 0.01) > wanted * 0.999


@given(st.integers(1, 30), st.integers(0, 60), excesses)
def test_more_workers_divide_the_factor(f: int, more: int, excess: float) -> None:
    """As many correct ones beyond f; one less would not do."""
    n_workers = 3 * f + 1 + more
    needed = workers_for(n_workers, n_workers - f, f, excess)
    now = factor(n_workers - f, f)

    assert now / factor(needed - f, f) >= excess * (1 - 1e-6)
    assert now / factor(needed - 1 - f, f) < excess


def test_the_example_of_the_documentation() -> None:
    """A ratio of 2.1 at a batch of 32 and a momentum of 0.9."""
    assert batch_for(32, 2.1) == 142
    assert momentum_for(0.9, 2.1) == 0.98
    assert workers_for(7, 5, 2, 2.1) == 11
    assert workers_for(10, 10, 3, 2) == 17  # Synchronous: all workers are in the quorum.


# The estimate


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_ratio_is_that_of_all_gradients(count: int) -> None:
    """However few were selected: what chance adds to the length of their mean is taken off."""
    chance = np.random.default_rng(7)
    gradient, noise = np.full(1000, 0.1), 0.15
    condition = Condition()
    for step in range(400):
        gradients = gradient + noise * chance.standard_normal((count, 1000))
        mean = gradients.mean(axis=0)
        variance = float(((gradients - mean) ** 2).sum()) / (count - 1)
        condition.update(step, Spread(1.0, count, variance, float(mean @ mean)))

    assert condition.ratio == pytest.approx(noise / 0.1, rel=0.05)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_noise_alone_has_no_length(count: int) -> None:
    """The mean of a few gradients is never 0, and yet the condition is seen to fail."""
    chance = np.random.default_rng(7)
    condition = Condition()
    for step in range(100):
        gradients = chance.standard_normal((count, 1000))
        mean = gradients.mean(axis=0)
        variance = float(((gradients - mean) ** 2).sum()) / (count - 1)
        condition.update(step, Spread(1.0, count, variance, float(mean @ mean)))

    assert condition.ratio is not None
    assert condition.ratio > 5
    assert condition.state is State.VIOLATED


def test_equal_gradients_have_no_spread() -> None:
    """Then the condition holds, also where all of them are 0."""
    for length in (1.0, 0.0):
        condition = watched((0.0, length))
        assert (condition.state, condition.ratio) == (State.HOLDS, 0)


# The state machine


def test_nothing_is_known_at_first() -> None:
    """Before as many updates as the averages reach back, and where updates show nothing."""
    condition = Condition()
    condition.update(0, None)
    assert (condition.state, condition.ratio) == (State.UNKNOWN, None)
    for step in range(SPAN - 1):
        condition.update(step, seen(3.0))
    assert condition.state is State.UNKNOWN
    assert condition.ratio == pytest.approx(3)

    condition.update(SPAN - 1, seen(3.0))
    assert (condition.state, condition.since) == (State.VIOLATED, SPAN - 1)


def test_one_bad_update_is_no_violation() -> None:
    """The averages of some twenty count."""
    condition = watched((0.3, 1.0))
    condition.update(1000, seen(3.0))

    assert condition.state is State.HOLDS


def test_what_fails_while_the_gradient_is_long_is_violated() -> None:
    """Also if it held at first."""
    assert watched((2.0, 1.0)).state is State.VIOLATED
    assert watched((0.5, 1.0), (2.0, 0.5)).state is State.VIOLATED


def test_what_fails_once_the_gradient_is_short_has_faded() -> None:
    """The end of a training must not look like its beginning."""
    assert watched(*FADED).state is State.FADED


def test_an_early_violation_is_remembered() -> None:
    """That the gradient is short by now does not undo it, nor what would have prevented it."""
    condition = watched((2.0, 1.0), (4.0, 0.05))
    needed = condition.excess
    condition.update(1000, seen(90.0, 0.05))

    assert condition.excess == needed > 1
    assert condition.state is State.VIOLATED
    assert condition.since == SPAN - 1


def test_it_holds_again_only_when_clearly_below_one() -> None:
    """So that noise about 1 tells nothing anew."""
    assert watched((2.0, 1.0), (0.9, 1.0)).state is State.VIOLATED
    assert watched((2.0, 1.0), (0.7, 1.0)).state is State.HOLDS


@pytest.mark.parametrize(("ratio", "state"), [(2.0, State.VIOLATED), (0.5, State.HOLDS)])
def test_a_gradient_that_grows_again_is_judged_again(ratio: float, state: State) -> None:
    """A plateau that is left is no optimum; half of the largest length is needed."""
    assert watched(*FADED, (ratio, 0.4)).state is State.FADED
    assert watched(*FADED, (ratio, 0.7)).state is state


def test_who_begins_late_does_not_warn() -> None:
    """A server that starts from a checkpoint knows nothing of the largest gradient."""
    condition = watched((3.0, 1.0), first=250)

    assert condition.state is State.FADED
    assert not condition.early


@given(st.lists(st.tuples(st.floats(0, 1e30), st.floats(0, 1e30)), max_size=80))
def test_any_updates_leave_a_ratio_that_can_be_told(
    numbers: Cluster, pairs: list[tuple[float, float]]
) -> None:
    """Between 0 and its largest, whatever liars had selected; JSON knows no infinity."""
    condition = Condition()
    for step, (variance, square) in enumerate(pairs):
        condition.update(step, Spread(1.5, 3, variance, square))
        assert condition.ratio is not None
        assert 0 <= condition.ratio <= RATIO_MAX
        assert 1 <= condition.excess <= RATIO_MAX
        assert sentence(condition, numbers).startswith("variance condition: ")
        assert condition.share >= 0


# What is said


@pytest.fixture(scope="module")
def numbers(cluster: Callable[..., Cluster]) -> Cluster:
    return cluster(5, 7, 1, 2, batch_size=32, worker_momentum=0.9)


def test_what_is_said_of_a_violated_condition(numbers: Cluster) -> None:
    """The ratio, since when, and both settings that would bring it down for long enough."""
    condition = watched((1.2, 1.0))

    # Until the length is a quarter of its largest the spread has to fall by 4 times 1.2.
    assert condition.excess == pytest.approx(4.8)
    assert sentence(watched((0.6, 1.0), (1.2, 0.5)), numbers) == (
        "variance condition: 1.2 over the last updates, failed at step 237 with the gradient "
        "still long: robustness is not promised; batch_size 185 instead of 32 would hold it until "
        "the gradient has shrunk to a quarter, if workers differ by chance alone; worker_momentum "
        "helps, 0.99 or more instead of 0.9"
    )


def test_what_is_said_of_the_other_states(numbers: Cluster) -> None:
    """Nothing to do, and why."""
    late = watched((3.0, 1.0), first=250)
    said = [
        sentence(condition, numbers)
        for condition in (Condition(), watched((0.5, 1.0)), watched(*FADED), late)
    ]

    assert said[0] == "variance condition: not known"
    assert said[1] == "variance condition: holds, 0.5 over the last updates"
    assert "no setting holds the condition" in said[2]
    assert "has not seen the training begin" in said[3]


def test_a_remedy_is_within_reason(numbers: Cluster) -> None:
    """Beyond that, how many workers would do; and nothing, where there is nothing but noise."""
    assert remedy(3.9, numbers).startswith("batch_size 487 instead of 32")
    assert "worker_momentum" not in remedy(3.9, numbers)
    assert remedy(10.0, numbers) == (
        f"neither a batch_size up to {BATCH_GROWTH_MAX * 32} nor a worker_momentum up to "
        f"{MOMENTUM_MAX} does; 34 workers instead of 7 would, or a smaller f_workers"
    )
    assert "no common direction" in remedy(RATIO_MAX, numbers)
