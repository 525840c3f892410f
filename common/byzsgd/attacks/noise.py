"""Random: a vector that has nothing to do with the correct ones, and is far longer."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import BOTH, Attack, View, of_length
from byzsgd.cluster import Role
from byzsgd.vectors import Vector, norm


@dataclass(frozen=True, kw_only=True, slots=True)
class Random(Attack):
    """Normal noise, ``scale`` times as long as the mean of the correct vectors.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine
    Tolerant Gradient Descent" (Gaussian).
    """

    roles: ClassVar[frozenset[Role]] = BOTH
    needs_sight: ClassVar[bool] = False

    scale: float = 100.0
    """How many times as long as the mean the lie is."""

    def forge(self, view: View, receiver: str) -> Vector:
        """The noise."""
        del receiver
        return noise(view, self.scale)


def noise(view: View, scale: float) -> Vector:
    """Normal noise of a step, ``scale`` times as long as the mean, ``(d,)`` float32."""
    mean = view.mean()
    vector = np.random.default_rng(view.seed).standard_normal(len(mean), np.float32)
    return of_length(vector, scale * norm(mean))
