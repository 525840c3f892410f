"""A noisy quadratic in NumPy alone: the task of simulations and of drills without torch."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byzsgd.errors import TaskError
from byzsgd.tasks.task import GradientSource, Share
from byzsgd.vectors import Vector, distance


def quadratic(d: int = 100, noise: float = 1.0) -> "Quadratic":
    """The task of finding a fixed point in d dimensions from noisy directions.

    Args:
        d: Number of coordinates, at least 1.
        noise: Standard deviation of one example's gradient in each coordinate, at least 0.

    Raises:
        TaskError: If an option is not such a number.
    """
    if type(d) is not int or d < 1:
        raise TaskError(f"task_options.d: found {d!r}; must be an integer of at least 1")
    if type(noise) not in (int, float) or not 0 <= noise < math.inf:
        raise TaskError(f"task_options.noise: found {noise!r}; must be a number of at least 0")
    return Quadratic(d, noise)


class Quadratic:
    """Loss ``||theta - target||^2 / 2``, whose gradient has Lipschitz constant l = 1.

    A mini-batch of B examples adds normal noise of standard deviation ``noise / sqrt(B)`` to each
    coordinate of the gradient. The target is the same for every seed.
    """

    def __init__(self, d: int, noise: float) -> None:
        self.target: Vector = np.cos(np.arange(d)).astype(np.float32)
        """``(d,)`` float32, every coordinate in [-1, 1]: where the loss is 0."""
        self._noise = noise

    def initial(self, seed: int) -> Vector:
        """theta_0: standard normal coordinates."""
        return np.random.default_rng(seed).standard_normal(len(self.target), np.float32)

    def source(self, share: Share) -> GradientSource:
        """The noisy gradients of one worker."""
        return _Source(self.target, self._noise / math.sqrt(share.batch_size), share)

    def accuracy(self, vector: Vector) -> float:
        """1 minus the root mean square distance of a coordinate to the target, at least 0."""
        away = vector.astype(np.float64) - self.target
        error = float(np.sqrt(np.mean(away * away)))
        return 1 - error if error < 1 else 0.0  # NaN is no accuracy either.

    def state(self, vector: Vector) -> dict[str, NDArray[Any]]:
        """The model under the name ``theta``."""
        return {"theta": vector.copy()}


class _Source:
    def __init__(self, target: Vector, deviation: float, share: Share) -> None:
        self._target = target
        self._deviation = np.float32(deviation)
        self._share = share

    def gradient(self, vector: Vector, step: int) -> tuple[Vector, float]:
        chance = np.random.default_rng([self._share.seed, self._share.index, step])
        gradient = chance.standard_normal(len(vector), np.float32)
        gradient *= self._deviation
        gradient += vector - self._target
        return gradient, distance(vector, self._target) ** 2 / 2
