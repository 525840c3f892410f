"""A little is enough: lies that hide within the spread of the correct gradients."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import WORKERS, View
from byzsgd.cluster import Role
from byzsgd.vectors import Vector

Z_MAX = 16.0
"""Above this, no rule worth the name selects a lie of ``AlieAdaptive``."""

HALVINGS = 12
"""Of the interval that holds the largest z: leaves it within 0.004."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alie:
    """The mean of the correct gradients, z standard deviations away in every coordinate.

    The paper's formula for z is negative for as few nodes as a demo has, so z is a number here.

    Source: Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed
    Learning".
    """

    roles: ClassVar[frozenset[Role]] = WORKERS
    per_receiver: ClassVar[bool] = False

    z: float = 1.5
    """Standard deviations from the mean; negative ones go the other way."""
    ddof: float = 0
    """Taken off the count of gradients in the standard deviation: 0 or 1."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean - z * deviation``."""
        del receiver
        return _shifted(view.mean(), _deviation(view, self.ddof), self.z)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlieAdaptive:
    """ALIE with the largest z whose lies minimum-diameter averaging still selects, all of them.

    The liars try z on a quorum of theirs and the first correct gradients, as a receiver may see
    it; that is more than an attacker on a real network knows.
    """

    roles: ClassVar[frozenset[Role]] = WORKERS
    per_receiver: ClassVar[bool] = False

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean - z * deviation`` with that z."""
        del receiver
        mean, deviation = view.mean(), _deviation(view, 0)
        correct = list(view.vectors[: max(view.quorum - view.f, 0)])

        def passes(z: float) -> bool:
            rows = [_shifted(mean, deviation, z)] * view.f + correct
            chosen = view.selects(rows, view.f)
            return set(range(view.f)) <= set(chosen)

        low, high = 0.0, Z_MAX
        if len(correct) + view.f <= 2 * view.f or passes(high):
            return _shifted(mean, deviation, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return _shifted(mean, deviation, low)


def _deviation(view: View, ddof: float) -> Vector:
    """Standard deviation of each coordinate; zero where a single vector was seen."""
    if len(view.vectors) <= ddof:
        return np.zeros_like(view.vectors[0])
    deviation: Vector = np.std(view.vectors, axis=0, dtype=np.float32, ddof=ddof)
    return deviation


def _shifted(mean: Vector, deviation: Vector, z: float) -> Vector:
    shifted = np.multiply(deviation, np.float32(-z))
    shifted += mean
    return shifted
