"""Equivocate: opposite lies to different receivers, to drive correct nodes apart."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import SERVERS, View, moved
from byzsgd.attacks.noise import noise
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Equivocate:
    """The mean of the correct models, moved one way for one receiver and back for the next.

    Every second receiver hears the opposite of what its neighbour hears. Against it stand the
    median, which no lie moves out of the correct models' range, and the gather, which contracts.
    """

    roles: ClassVar[frozenset[Role]] = SERVERS
    per_receiver: ClassVar[bool] = True

    scale: float = 1.0
    """How far the lies are from the mean, in lengths of the mean."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean + noise`` for receivers of even place, ``mean - noise`` for the others."""
        sign = 1 if view.receivers.index(receiver) % 2 == 0 else -1
        return moved(view.mean(), noise(view, self.scale), sign)
