"""The estimate of l, and the gather period that follows from it."""

import math
from pathlib import Path

import numpy as np
import pytest

from byzsgd.tasks import TASKS, load_task
from byzsgd.tasks.quadratic import Quadratic, quadratic
from byzsgd.tasks.smoothness import gather_period, smoothness
from byzsgd.tasks.task import GradientSource, Share
from byzsgd.vectors import Vector


class Bent(Quadratic):
    """A quadratic whose gradient is l times as steep."""

    def __init__(self, steepness: float) -> None:
        super().__init__(50, noise=1.0)
        self._steepness = np.float32(steepness)

    def source(self, share: Share) -> GradientSource:
        inner, steepness = super().source(share), self._steepness

        class Source:
            def gradient(self, vector: Vector, step: int) -> tuple[Vector, float]:
                gradient, loss = inner.gradient(vector, step)
                with np.errstate(over="ignore", invalid="ignore"):
                    return gradient * steepness, loss * float(steepness)

        return Source()


@pytest.mark.parametrize("noise", [0.0, 1.0, 100.0])
def test_a_quadratics_constant_is_found_through_the_noise(noise: float) -> None:
    """L = 1: both gradients of a ratio are taken on the same mini-batch, so noise cancels."""
    estimate = smoothness(quadratic(50, noise), seed=1, learning_rate=0.1, batch_size=4)

    assert estimate == pytest.approx(1, rel=1e-3)


class Averaged(Bent):
    """The same, whose last coordinates are buffers, with a will of their own."""

    def n_buffers(self) -> int:
        return 5

    def source(self, share: Share) -> GradientSource:
        inner, chance = super().source(share), np.random.default_rng(1)

        class Source:
            def gradient(self, vector: Vector, step: int) -> tuple[Vector, float]:
                gradient, loss = inner.gradient(vector, step)
                gradient[-5:] = chance.normal(0, 1e6, 5)
                return gradient, loss

        return Source()


def test_buffers_have_no_gradient_that_could_bend() -> None:
    """What a batch makes of averages says nothing of the loss."""
    estimate = smoothness(Averaged(2.0), seed=1, learning_rate=0.1, batch_size=4)

    assert estimate == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize(
    ("steepness", "learning_rate", "period"),
    [(1.0, 0.1, 3), (2.0, 0.1, 1), (0.1, 0.1, 33), (1.0, 0.5, 1), (100.0, 1.0, 1)],
)
def test_the_gather_period_is_one_over_three_l_eta(
    steepness: float, learning_rate: float, period: int
) -> None:
    """Rounded down, and at least 1."""
    task = Bent(steepness)

    assert gather_period(task, seed=1, learning_rate=learning_rate, batch_size=4) == period


def test_a_flat_loss_promises_nothing() -> None:
    """Where no gradient ever changes, every step is gathered."""
    assert smoothness(Bent(0.0), seed=1, learning_rate=0.1, batch_size=4) == 0
    assert gather_period(Bent(0.0), seed=1, learning_rate=0.1, batch_size=4) == 1


def test_a_training_that_goes_out_of_bounds_promises_nothing() -> None:
    """The estimate is infinite, without a warning, and every step is gathered."""
    task = Bent(1e20)

    assert smoothness(task, seed=1, learning_rate=1e20, batch_size=4) == math.inf
    assert gather_period(task, seed=1, learning_rate=1e20, batch_size=4) == 1


def test_the_digits_have_a_constant() -> None:
    """The same for the same seed, on every node."""
    defaults = TASKS["digits"].defaults
    estimates = {
        smoothness(
            load_task("digits", {}, directory=Path()),
            seed=1,
            learning_rate=defaults.learning_rate,
            batch_size=defaults.batch_size,
        )
        for _ in range(2)
    }

    assert len(estimates) == 1
    assert 0.1 < estimates.pop() < 100
