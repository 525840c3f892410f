"""A little is enough: lies that hide within the spread of the correct gradients."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import WORKERS, Attack, View, deviation, moved
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Alie(Attack):
    """The mean of the correct gradients, z standard deviations away in every coordinate.

    The paper's formula for z is negative for as few nodes as a demo has, so z is a number here.

    Source: Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed
    Learning".
    """

    roles: ClassVar[frozenset[Role]] = WORKERS

    z: float = 1.5
    """Standard deviations from the mean. From about 2 on MDA leaves the lies out."""
    ddof: float = 0
    """Taken off the count of gradients in the standard deviation: 0 or 1."""
    sign: float = -1
    """Which way: -1 below the mean, as in the paper, 1 above it."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean + sign * z * deviation``."""
        del receiver
        return moved(view.mean(), deviation(view.vectors, self.ddof), self.sign * self.z)
