"""Sign-flip: the way back, and further than the correct nodes went forward."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import BOTH, Attack, View, moved
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class SignFlip(Attack):
    """The mean of the correct vectors, reversed and enlarged.

    Two of seven workers turn an average round with any scale above 2.5; a robust rule leaves such
    a vector out at once.

    Source: Li, Xu, Chen, Giannakis, Ling, "RSA: Byzantine-Robust Stochastic Aggregation Methods
    for Distributed Learning from Heterogeneous Datasets" (sign-flipping).
    """

    roles: ClassVar[frozenset[Role]] = BOTH

    scale: float = 10.0
    """How many times as long as the mean the lie is."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``-scale`` times the mean."""
        del receiver
        return moved(0, view.mean(), -self.scale)
