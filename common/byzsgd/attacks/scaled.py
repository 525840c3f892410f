"""Scaled: what correct nodes say, many times as loud."""

from dataclasses import dataclass
from typing import ClassVar

from byzsgd.attacks.attack import WORKERS, Attack, View, moved
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled(Attack):
    """The mean of the correct vectors times a factor.

    Source: Guerraoui, Guirguis, Plassmann, Ragot, Rouault, "Garfield: System Support for Byzantine
    Machine Learning" (reversed vectors, -100).
    """

    roles: ClassVar[frozenset[Role]] = WORKERS

    factor: float = -100.0
    """What the mean is multiplied by: 100 runs ahead, -100 runs back."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``factor`` times the mean."""
        del receiver
        return moved(0, view.mean(), self.factor)
