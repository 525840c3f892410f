"""Adaptive ALIE: as far within the spread of the correct gradients as MDA lets it go."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import WORKERS, Attack, View, deviation, moved
from byzsgd.cluster import Role
from byzsgd.vectors import Vector, is_finite

HALVINGS_MAX = 50
"""Of the interval that holds the largest z; more than a float32 lie can show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlieAdaptive(Attack):
    """ALIE with the largest z whose lies minimum-diameter averaging still selects, all of them.

    The liars try z on quorums of theirs and some correct gradients, as a receiver may see them;
    that is more than an attacker on a real network knows.

    Source: Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed
    Learning"; the search is ours.
    """

    roles: ClassVar[frozenset[Role]] = WORKERS

    z_max: float = 16.0
    """Above this, no rule worth the name selects a lie."""
    precision: float = 0.004
    """How close to the largest z the search comes."""
    quorums: float = 3
    """Quorums tried on: above 1 a lie has to pass whichever correct gradients are fastest."""
    ddof: float = 0
    """Taken off the count of gradients in the standard deviation: 0 or 1."""
    sign: float = -1
    """Which way: -1 below the mean, 1 above it."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean + sign * z * deviation`` with that z."""
        del receiver
        mean, spread = view.mean(), deviation(view.vectors, self.ddof)
        liars = min(view.count, view.quorum)
        quorums = view.quorums(self.quorums)

        def passes(z: float) -> bool:
            lie = moved(mean, spread, self.sign * z)
            if not is_finite(lie):
                return False
            return all(
                set(range(liars)) <= set(view.selects([lie] * liars + correct, view.f))
                for correct in quorums
            )

        low, high = 0.0, self.z_max
        if liars + len(quorums[0]) <= 2 * view.f or passes(high):
            return moved(mean, spread, self.sign * high)
        for _ in range(HALVINGS_MAX):
            if high - low <= self.precision:
                break
            middle = (low + high) / 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        return moved(mean, spread, self.sign * low)
