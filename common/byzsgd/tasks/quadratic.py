"""A noisy quadratic in NumPy alone: the task of simulations and of drills without torch."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byzsgd.errors import TaskError
from byzsgd.tasks.shards import DICE
from byzsgd.tasks.task import GradientSource, Share
from byzsgd.vectors import Vector, distance


def quadratic(d: int = 100, noise: float = 1.0, spread: float = 0.0) -> "Quadratic":
    """The task of finding a fixed point in d dimensions from noisy directions.

    Args:
        d: Number of coordinates, at least 1.
        noise: Standard deviation of one example's gradient in each coordinate, at least 0.
        spread: Standard deviation, in each coordinate, of the workers' own targets around the one
            that is sought, at least 0. What a split of labelled data does to the others' gradients:
            correct workers differ by more than chance, in the same way in every step.

    Raises:
        TaskError: If an option is not such a number.
    """
    if type(d) is not int or d < 1:
        raise TaskError(f"task_options.d: found {d!r}; must be an integer of at least 1")
    for name, value in (("noise", noise), ("spread", spread)):
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise TaskError(f"task_options.{name}: found {value!r}; must be a number of at least 0")
    return Quadratic(d, noise, spread)


class Quadratic:
    """Loss ``||theta - target||^2 / 2``, whose gradient has Lipschitz constant l = 1.

    A mini-batch of B examples adds normal noise of standard deviation ``noise / sqrt(B)`` to each
    coordinate of the gradient. The target is the same for every seed. With a spread every worker
    has a target of its own, and their mean is the target.
    """

    def __init__(self, d: int, noise: float, spread: float = 0.0) -> None:
        self.target: Vector = np.cos(np.arange(d)).astype(np.float32)
        """``(d,)`` float32, every coordinate in [-1, 1]: where the loss is 0."""
        self._noise = noise
        self._spread = spread

    def initial(self, seed: int) -> Vector:
        """theta_0: standard normal coordinates."""
        return np.random.default_rng(seed).standard_normal(len(self.target), np.float32)

    def source(self, share: Share) -> GradientSource:
        """The noisy gradients of one worker, towards its own target."""
        return _Source(self.target_of(share), self._noise / math.sqrt(share.batch_size), share)

    def label_flipped(self) -> "Quadratic":
        """The task of finding the opposite point: what a label is to others, a target is here."""
        flipped = Quadratic(len(self.target), self._noise, self._spread)
        flipped.target = -self.target
        return flipped

    def target_of(self, share: Share) -> Vector:
        """``(d,)`` float32: where one worker's loss is 0."""
        if not self._spread:
            return self.target
        own, total = self.target, np.zeros(len(self.target), np.float32)
        for index in range(share.n_workers):
            chance = np.random.default_rng([share.seed, DICE, index])
            offset = np.float32(self._spread) * chance.standard_normal(len(total), np.float32)
            total += offset
            own = own + offset if index == share.index else own
        return own - total / np.float32(share.n_workers)

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
