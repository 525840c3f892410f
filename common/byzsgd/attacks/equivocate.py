"""Equivocate: opposite lies to different receivers, to drive correct nodes apart."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import BOTH, Attack, View, deviation, moved
from byzsgd.attacks.noise import noise
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Equivocate(Attack):
    """The mean of the correct vectors, moved one way for one receiver and back for the next.

    Every second receiver hears the opposite of what its neighbour hears. Lying workers move it by
    standard deviations (ALIE one way, ALIE the other way), lying servers by noise. Against it
    stand the median, which no lie moves out of the correct models' range, and the gather.

    Source: Lamport, Shostak, Pease, "The Byzantine Generals Problem" (different lies to
    different receivers); the lies are ours.
    """

    roles: ClassVar[frozenset[Role]] = BOTH
    per_receiver: ClassVar[bool] = True

    scale: float = 1.0
    """How far the lies are from the mean: of gradients in standard deviations, of models in
    lengths of the mean."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean + move`` for receivers of even place, ``mean - move`` for the others."""
        sign = 1 if view.place(receiver) % 2 == 0 else -1
        if view.role is Role.WORKER:
            return moved(view.mean(), deviation(view.vectors), sign * self.scale)
        return moved(view.mean(), noise(view, self.scale), sign)
