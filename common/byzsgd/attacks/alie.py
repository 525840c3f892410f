"""A little is enough: lies that hide within the spread of the correct gradients."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from byzsgd.attacks.attack import WORKERS, View, moved
from byzsgd.cluster import Role
from byzsgd.vectors import Vector, is_finite

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
        return moved(view.mean(), _deviation(view, self.ddof), -self.z)


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
        liars = min(view.count, view.quorum)
        correct = list(view.vectors[: view.quorum - liars])

        def passes(z: float) -> bool:
            lie = moved(mean, deviation, -z)
            if not is_finite(lie):
                return False
            return set(range(liars)) <= set(view.selects([lie] * liars + correct, view.f))

        low, high = 0.0, Z_MAX
        if liars + len(correct) <= 2 * view.f or passes(high):
            return moved(mean, deviation, -high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return moved(mean, deviation, -low)


def _deviation(view: View, ddof: float) -> Vector:
    """Standard deviation of each coordinate; zero where a single vector was seen."""
    if len(view.vectors) <= ddof:
        return np.zeros_like(view.vectors[0])
    wide: NDArray[np.float64] = np.std(view.vectors, axis=0, dtype=np.float64, ddof=ddof)
    return wide.astype(np.float32)
