"""Slow drift: models a little further away in every step, none of which stands out."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import SERVERS, Attack, View, moved, of_length
from byzsgd.cluster import Role
from byzsgd.vectors import Vector, norm


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowDrift(Attack):
    """The mean of the correct models, moved in one direction, a constant way more in each step.

    Averaged models follow it; a median stays within the correct models' range.

    Source: ours, after El-Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed
    Byzantine Machine Learning" (drift, here made by liars).
    """

    roles: ClassVar[frozenset[Role]] = SERVERS

    rate: float = 0.01
    """Way of one step, in lengths of the mean."""

    def forge(self, view: View, receiver: str) -> Vector:
        """``mean + rate * (step + 1) * |mean|`` in the run's direction."""
        del receiver
        mean = view.mean()
        chance = np.random.default_rng(view.seed[0])
        direction = chance.standard_normal(len(mean), np.float32)
        return moved(mean, of_length(direction, self.rate * (view.step + 1) * norm(mean)), 1)
