"""Median-edge: the worst model that is still within the correct models' range."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from byzsgd.attacks.attack import SERVERS, Attack, View, undoing
from byzsgd.cluster import Role
from byzsgd.vectors import Vector


@dataclass(frozen=True, kw_only=True, slots=True)
class MedianEdge(Attack):
    """In each coordinate the extreme of the correct models, on the side where training came from.

    It is as far as a median can be moved, and no filter can tell it from a correct coordinate.

    Source: Fang, Cao, Jia, Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated
    Learning" (extremes against a median); on models, ours.
    """

    roles: ClassVar[frozenset[Role]] = SERVERS

    def forge(self, view: View, receiver: str) -> Vector:
        """Largest where training went down, smallest where it went up."""
        del receiver
        models = list(view.last.values()) or view.vectors
        lie: Vector = np.where(undoing(view) > 0, np.max(models, axis=0), np.min(models, axis=0))
        return lie
